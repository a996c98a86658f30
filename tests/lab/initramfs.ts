// Builds a guest's initramfs: busybox, kernel modules, files of the caller's, and an init that mounts the usual
// file systems, loads modules and runs a script, then serves GuestVm's commands.
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { gzipSync } from 'node:zlib';
import { type ArchiveEntry, cpioArchive } from './cpio.ts';
import { AGENT_SCRIPT, initScript, LOAD_SCRIPT } from './guest-scripts.ts';
import { LabError } from './lab-error.ts';
import { ModuleTree, nameOf } from './modules.ts';
import { runProgram } from './run-program.ts';

/** A file for the guest: content given, or copied from `source` on this machine; or a link to `target`. */
export type GuestFile =
  | ArchiveEntry
  | { readonly path: string; readonly source: string; readonly mode?: number };

/** What goes into an initramfs. */
export interface InitramfsOptions {
  /** Where to write it; its folder is made. */
  readonly file: string;
  /** A static busybox. */
  readonly busybox: string;
  /** The same for the guest, where its processor is another. */
  readonly guestBusybox?: string;
  /** The kernel's /lib/modules/VERSION folder. */
  readonly modulesFolder: string;
  /** Modules to load at start, in this order, each with parameters: 'vfio-pci enable_sriov=1'; or a file, 'my_card.ko'. */
  readonly modules?: readonly string[];
  /** Modules that the guest can load later with the command `load NAME [PARAMETER=VALUE …]`. */
  readonly loadableModules?: readonly string[];
  readonly files?: readonly GuestFile[];
  /** Shell commands that init runs before anything is reported ready. */
  readonly script?: string;
  /** Serve GuestVm's commands in the end (default), or power the guest off when the script has ended. */
  readonly agent?: boolean;
  /** An init of the caller's own, in place of the usual one. */
  readonly init?: string;
}

/** Writes the archive, compressed, to `options.file`, and gives that path. */
export async function writeInitramfs(options: InitramfsOptions): Promise<string> {
  const requests = options.modules ?? [];
  const names = [...requests, ...(options.loadableModules ?? [])].map((it) => it.split(' ')[0]!);
  const init = options.init ?? initScript(requests, options.agent ?? true);
  const entries: ArchiveEntry[] = [
    // The kernel opens the console before init runs, so devtmpfs comes too late for it.
    { path: '/dev/console', device: { major: 5, minor: 1 } },
    ...['/proc', '/sys', '/tmp', '/run'].map((path) => ({ path, folder: true }) as const),
    { path: '/init', content: init, mode: 0o755 },
    { path: '/lab/agent', content: AGENT_SCRIPT, mode: 0o755 },
    { path: '/bin/load', content: LOAD_SCRIPT, mode: 0o755 },
    ...(await busyboxEntries(options.busybox, options.guestBusybox)),
    ...(await moduleEntries(options.modulesFolder, options.busybox, names)),
    ...(await Promise.all((options.files ?? []).map(toEntry))),
  ];
  if (options.script !== undefined) {
    entries.push({ path: '/lab/script', content: options.script });
  }
  await mkdir(dirname(options.file), { recursive: true });
  await writeFile(options.file, gzipSync(cpioArchive(entries), { level: 1 }));
  return options.file;
}

/** busybox at /bin/busybox, and a link beside it for each of its commands. */
export async function busyboxEntries(
  busybox: string,
  guestBusybox = busybox,
): Promise<ArchiveEntry[]> {
  const list = await runProgram(busybox, ['--list']);
  if (list.status !== 0) {
    throw new LabError(busybox, list.stderr, 'name a static busybox');
  }
  const commands = list.stdout.toString('utf8').trim().split('\n');
  const links = commands
    .filter((command) => command !== 'busybox')
    .map((command) => ({ path: `/bin/${command}`, target: 'busybox' }));
  return [{ path: '/bin/busybox', content: await readFile(guestBusybox), mode: 0o755 }, ...links];
}

/** The modules `names` and what they depend on, with the order to load each in, for the command `load`. */
export async function moduleEntries(
  modulesFolder: string,
  busybox: string,
  names: readonly string[],
): Promise<ArchiveEntry[]> {
  const entries: ArchiveEntry[] = [];
  if (names.length === 0) {
    return entries;
  }
  const tree = await ModuleTree.open(modulesFolder, busybox);
  for (const name of names) {
    const closure = await tree.closureOf(name);
    const order = closure.map((module) => `${module.name}\n`).join('');
    entries.push({ path: `/modules/order/${nameOf(name)}`, content: order });
    for (const module of closure) {
      entries.push({ path: `/modules/${module.name}.ko`, content: module.object });
    }
  }
  return entries;
}

async function toEntry(file: GuestFile): Promise<ArchiveEntry> {
  if (!('source' in file)) {
    return file;
  }
  const content = await readFile(file.source);
  return { path: file.path, content, mode: file.mode ?? 0o755 };
}
