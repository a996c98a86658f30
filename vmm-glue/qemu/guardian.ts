// Makes sure that a launcher that is killed leaves nothing behind: a small shell that waits for the launcher's end of
// a pipe to close, then ends what the launcher had started and removes its folder. It needs no help of the kernel's.
import { type ChildProcess, spawn } from 'node:child_process';

/** QEMU first, so that no device of it is served any more when the backend cleans up; the backend gets 5 s for that. */
const SCRIPT = `
trap '' INT TERM HUP QUIT
qemu= backend=
while read -r word pid; do
  case $word in
    qemu) qemu=$pid ;;
    backend) backend=$pid ;;
    done) exit 0 ;;
  esac
done
[ -z "$qemu" ] || kill -KILL "$qemu"
if [ -n "$backend" ]; then
  kill -TERM "$backend"
  tries=0
  while [ $tries -lt 50 ] && kill -0 "$backend"; do
    sleep 0.1
    tries=$((tries + 1))
  done
  kill -KILL "$backend"
fi
rm -rf -- "$1"
`;

/** The shell and its arguments; it reads on its standard input whom to end, or that all is done. */
export function guardianCommand(folder: string): readonly [string, ...string[]] {
  return ['/bin/sh', '-c', SCRIPT, 'guardian', folder];
}

export class Guardian {
  readonly #shell: ChildProcess;

  /** `folder` is removed when the launcher is killed. */
  constructor(folder: string) {
    // A session of its own: a terminal's signals are for QEMU and the launcher.
    const [shell, ...args] = guardianCommand(folder);
    this.#shell = spawn(shell, args, {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
    });
    this.#shell.on('error', () => {});
    this.#shell.stdin?.on('error', () => {});
    this.#shell.unref();
  }

  /** From now on this process is ended with the launcher; undefined: it has ended. */
  watch(role: 'qemu' | 'backend', pid: number | undefined): void {
    this.#shell.stdin?.write(`${role} ${pid ?? ''}\n`);
  }

  /** The launcher has cleaned up itself. */
  dismiss(): void {
    this.#shell.stdin?.end('done\n');
  }
}
