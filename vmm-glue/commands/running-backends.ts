// Which backends of this user run on this machine, read from /proc: a backend keeps no record that could go stale.
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { activatedFd } from '../../protocol/launch/activation.ts';

/** A backend that runs: its process and the socket of its PF. */
export interface RunningBackend {
  readonly pid: number;
  readonly socketPath: string;
}

/** How this program is called, from a checkout or installed. */
const PROGRAM_NAMES = ['cli.js', 'vfio-user-sriov', 'vfio-user-sriov.js'];
const ROOT = 0;
/** __SO_ACCEPTCON among the flags of a socket. */
const LISTENS = 0x10000;

/** The backends of `uid`, of root all, that have a socket with a path, by process number. `proc`: the kernel's /proc. */
export function runningBackends(uid: number, proc = '/proc'): RunningBackend[] {
  return readdirSync(proc)
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .sort((one, other) => one - other)
    .flatMap((pid) => backendOf(pid, uid, join(proc, String(pid))) ?? []);
}

function backendOf(pid: number, uid: number, folder: string): RunningBackend | undefined {
  try {
    if (uid !== ROOT && statSync(folder).uid !== uid) {
      return undefined;
    }
    const options = serveOptionsIn(wordsIn(folder, 'cmdline'));
    if (options === undefined) {
      return undefined;
    }
    const socketPath =
      optionIn(options, '--socket-path') ?? listeningPath(folder, fdOf(pid, folder, options));
    return socketPath === undefined
      ? undefined
      : { pid, socketPath: resolve(readlinkSync(join(folder, 'cwd')), socketPath) };
  } catch {
    // A process may end while it is looked at, and those of others cannot be looked into.
    return undefined;
  }
}

/** What a command line gives to `serve`; undefined where it is none of a backend. */
function serveOptionsIn(args: readonly string[]): readonly string[] | undefined {
  const serve = args.findIndex(
    (word, at) => word === 'serve' && PROGRAM_NAMES.includes(basename(args[at - 1] ?? '')),
  );
  return serve < 0 ? undefined : args.slice(serve + 1);
}

/** The last one counts, as `serve` has it. */
function optionIn(options: readonly string[], name: string): string | undefined {
  const at = options.findLastIndex((word) => word === name || word.startsWith(`${name}=`));
  const word = options[at];
  return word === name ? options[at + 1] : word?.slice(name.length + 1);
}

/** The socket that it was handed: by whoever started it, or by systemd. */
function fdOf(pid: number, folder: string, options: readonly string[]): number | undefined {
  const fd = optionIn(options, '--fd');
  if (fd !== undefined) {
    return Number(fd);
  }
  const environment = wordsIn(folder, 'environ').map((word) => {
    const at = word.indexOf('=');
    return [word.slice(0, at), word.slice(at + 1)];
  });
  return activatedFd(Object.fromEntries(environment), pid);
}

/** Where the kernel says that an fd of the process listens; nobody else can connect to one that is connected. */
function listeningPath(folder: string, fd: number | undefined): string | undefined {
  const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(join(folder, 'fd', String(fd))))?.[1];
  // proc(5): Num RefCount Protocol Flags Type St Inode Path; @ begins an abstract name.
  for (const line of readFileSync(join(folder, 'net/unix'), 'utf8').split('\n')) {
    const [, flags, ofLine, path] = /^\S+ \S+ \S+ (\S+) \S+ \S+ +(\d+) ([^@].*)$/.exec(line) ?? [];
    if (ofLine === inode && (Number.parseInt(flags!, 16) & LISTENS) !== 0) {
      return path;
    }
  }
  return undefined;
}

function wordsIn(folder: string, file: string): string[] {
  return readFileSync(join(folder, file), 'utf8').split('\0').slice(0, -1);
}
