// Programs for guests that busybox does not have: setpci, and nvme for NVMe's admin commands. With their loader and
// libraries they are files for an initramfs.
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { GuestFile } from './initramfs.ts';
import { guestToolsPrefix } from './lab.ts';
import { LabError } from './lab-error.ts';
import { runProgram } from './run-program.ts';

/** Paths below the prefix. */
const PROGRAMS = {
  setpci: 'usr/bin/setpci',
  lspci: 'usr/bin/lspci',
  nvme: 'usr/sbin/nvme',
  'mkfs.ext4': 'usr/sbin/mke2fs',
  fio: 'usr/bin/fio',
  ethtool: 'usr/sbin/ethtool',
} as const;
const LOADER = 'usr/lib64/ld-linux-x86-64.so.2';
/** fio's storage clients have some in a folder of their own. */
const LIBRARIES = ['usr/lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu/ceph'];

export type GuestTool = keyof typeof PROGRAMS;

/** Files that make `tools` work in a guest, where they are found by name. Throws LabError. */
export async function guestToolFiles(tools: readonly GuestTool[]): Promise<GuestFile[]> {
  const prefix = await guestToolsPrefix();
  const files = new Map<string, GuestFile>();
  const add = (path: string, source: string): void => void files.set(path, { path, source });
  for (const tool of tools) {
    const program = join(prefix, PROGRAMS[tool]);
    add(`/bin/${tool}`, program);
    for (const library of await librariesOf(prefix, program)) {
      add(`/lib/x86_64-linux-gnu/${basename(library)}`, library);
    }
  }
  return [
    ...files.values(),
    {
      path: '/lib64/ld-linux-x86-64.so.2',
      content: await readFile(join(prefix, LOADER)),
      mode: 0o755,
    },
  ];
}

/** The names of vendors and devices, for lspci. Throws LabError. */
export async function pciNamesFile(): Promise<GuestFile> {
  const path = 'usr/share/misc/pci.ids';
  return { path: `/${path}`, source: join(await guestToolsPrefix(), path) };
}

/** The libraries that the loader finds for `program` below `prefix`. */
async function librariesOf(prefix: string, program: string): Promise<string[]> {
  const list = await runProgram(join(prefix, LOADER), [
    '--library-path',
    LIBRARIES.map((folder) => join(prefix, folder)).join(':'),
    '--list',
    program,
  ]);
  const libraries = [...list.stdout.toString('utf8').matchAll(/=> (\S+)/g)].map((it) => it[1]!);
  if (list.status !== 0 || libraries.some((path) => !path.startsWith(prefix))) {
    throw new LabError(
      program,
      'a library of it is missing',
      `remove ${prefix} and run this again`,
    );
  }
  return libraries;
}
