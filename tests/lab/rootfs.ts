// The file system of a virtual host: a VM that has a Node.js, a QEMU and this project, and so can run backends and
// nested guests. Its root is an initramfs; the big trees are folders of this machine, mounted read-only over 9p.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { GuestFile } from './initramfs.ts';
import { qemuPrefix } from './lab.ts';

/** A folder of this machine that the VM sees at `path`; read-only unless `writable`. */
export interface Share {
  readonly path: string;
  readonly source: string;
  readonly writable?: boolean;
}

/** The shares that make a virtual host: /usr with QEMU and its libraries, Node.js, /project, and /boot. */
export async function hostShares(kernel: string): Promise<Share[]> {
  return [
    { path: '/usr', source: join(await qemuPrefix(), 'usr') },
    { path: NODE_FOLDER, source: dirname(process.execPath) },
    { path: '/project', source: await projectFolder() },
    { path: '/boot', source: dirname(kernel) },
  ];
}

const NODE_FOLDER = '/lab/node';

/** What the root needs besides: where programs look for their loader and libraries, and `node` in the path. */
export const HOST_FILES: readonly GuestFile[] = [
  { path: '/lib', target: 'usr/lib' },
  { path: '/lib64', target: 'usr/lib64' },
  { path: '/bin/node', target: `${NODE_FOLDER}/node` },
];

/** The modules that mounting the shares takes. */
export const SHARE_MODULES = ['9pnet_virtio', '9p'] as const;

/** Shell commands that mount `shares` inside the VM. */
export function mountScript(shares: readonly Share[]): string {
  const lines = shares.map(({ path, writable }, index) => {
    const access = writable ? 'rw,cache=none' : 'ro,cache=loose';
    const options = `${access},trans=virtio,version=9p2000.L,msize=1048576`;
    return `mkdir -p ${path} && mount -t 9p -o ${options} ${tagOf(index)} ${path}\n`;
  });
  return lines.join('');
}

/** QEMU arguments that offer `shares`; from device number 0x10 on, out of the way of the devices under test. */
export function shareArguments(shares: readonly Share[]): string[] {
  return shares.flatMap(({ source, writable }, index) => {
    const tag = tagOf(index);
    const readonly = writable ? 'off' : 'on';
    return [
      ...['-fsdev', `local,id=${tag},path=${source},security_model=none,readonly=${readonly}`],
      ...[
        '-device',
        `virtio-9p-pci,fsdev=${tag},mount_tag=${tag},addr=0x${(0x10 + index).toString(16)}`,
      ],
    ];
  });
}

function tagOf(index: number): string {
  return `share${index}`;
}

/** The folder of this project's package.json, from its sources as well as from its build. */
export async function projectFolder(): Promise<string> {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const file = join(folder, 'package.json');
    if (existsSync(file) && JSON.parse(await readFile(file, 'utf8')).name === 'vfio-user-sriov') {
      return folder;
    }
    if (folder === '/') {
      throw new Error('tests/lab is not inside the vfio-user-sriov project');
    }
  }
}
