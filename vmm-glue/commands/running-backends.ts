// Which backends of this user run on this machine, read from /proc: a backend keeps no record that could go stale.
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';

/** A backend that runs: its process and the socket of its PF. */
export interface RunningBackend {
  readonly pid: number;
  readonly socketPath: string;
}

/** How this program is called, from a checkout or installed. */
const PROGRAM_NAMES = ['cli.js', 'vfio-user-sriov', 'vfio-user-sriov.js'];
const SOCKET_OPTION = '--socket-path';

/** The backends of `uid` that have a socket with a path, by process number. `proc`: the kernel's /proc. */
export function runningBackends(uid: number, proc = '/proc'): RunningBackend[] {
  return readdirSync(proc)
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .sort((one, other) => one - other)
    .flatMap((pid) => backendOf(pid, uid, join(proc, String(pid))) ?? []);
}

function backendOf(pid: number, uid: number, folder: string): RunningBackend | undefined {
  try {
    if (statSync(folder).uid !== uid) {
      return undefined;
    }
    const socketPath = servedSocket(
      readFileSync(join(folder, 'cmdline'), 'utf8').split('\0').slice(0, -1),
    );
    if (socketPath === undefined) {
      return undefined;
    }
    return { pid, socketPath: resolve(readlinkSync(join(folder, 'cwd')), socketPath) };
  } catch {
    // A process may end while it is looked at, and those of others cannot be looked into.
    return undefined;
  }
}

/** The socket that a command line serves a PF at; undefined where it is not one of `serve`, or serves an fd. */
function servedSocket(args: readonly string[]): string | undefined {
  const serve = args.findIndex(
    (word, at) => word === 'serve' && PROGRAM_NAMES.includes(basename(args[at - 1] ?? '')),
  );
  const options = serve < 0 ? [] : args.slice(serve + 1);
  const at = options.findLastIndex(
    (word) => word === SOCKET_OPTION || word.startsWith(`${SOCKET_OPTION}=`),
  );
  const word = options[at];
  return word === SOCKET_OPTION ? options[at + 1] : word?.slice(SOCKET_OPTION.length + 1);
}
