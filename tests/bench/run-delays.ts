// How long the threads on the way of an answer could have run and had no CPU: the kernel's account of it, schedstat.
import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';

const NANOSECONDS_PER_MILLISECOND = 1e6;

export class RunDelays {
  readonly #files: number[];
  readonly #text = Buffer.alloc(128);

  /** Of this thread, and of the busiest one of a backend that is flooded or was: its device thread. */
  constructor(backendPid: number) {
    const own = `/proc/self/task/${process.pid}/schedstat`;
    this.#files = [own, `/proc/${backendPid}/task/${busiestThread(backendPid)}/schedstat`].map(
      (path) => openSync(path, 'r'),
    );
  }

  /** Since the threads began. */
  milliseconds(): number {
    let nanoseconds = 0;
    for (const file of this.#files) {
      const length = readSync(file, this.#text, 0, this.#text.length, 0);
      nanoseconds += Number(this.#text.toString('latin1', 0, length).split(' ')[1]);
    }
    return nanoseconds / NANOSECONDS_PER_MILLISECOND;
  }

  close(): void {
    this.#files.forEach(closeSync);
  }
}

function busiestThread(pid: number): string {
  const ran = (thread: string): number =>
    Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
  const threads = readdirSync(`/proc/${pid}/task`);
  return threads.reduce((best, each) => (ran(each) > ran(best) ? each : best));
}
