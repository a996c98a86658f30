// What `status` shows of the guest's driver: read from the recording that is being made, or, while somebody watches and
// none is, from one of the watcher's own, which is memory and ends with the watch.
import { accessSync, constants } from 'node:fs';
import { situationOf } from '../../protocol/explained-error.ts';
import type { TraceState } from '../../protocol/hotplug/status.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { createMemfd } from '../../protocol/unix/memory.ts';
import { monotonicNanoseconds } from '../../protocol/unix/process-clock.ts';
import { UserError } from '../../protocol/user-error.ts';
import type { VfioUserClient } from '../client/client.ts';
import { RemoteError } from '../client/connection-errors.ts';
import { LiveTrace } from '../trace/explain/live-trace.ts';
import type { Finding } from '../trace/explain/rule.ts';

/** What is known of the driver; `problem` where it cannot be. */
export interface DriverLook {
  readonly finding?: Finding | undefined;
  /** The last that was done, as `trace` prints it. */
  readonly lines?: readonly string[];
  readonly problem?: string;
}

const OWN_BYTES = 4 * 2 ** 20;
const MOST_LINES = 12;

/** Of a recording that is on: the newest finding. */
export function lookAtTrace({ path }: TraceState): DriverLook {
  if (typeof path !== 'string') {
    return { problem: 'the recording has no file that can be read' };
  }
  try {
    const trace = new LiveTrace(path);
    try {
      trace.look(monotonicNanoseconds());
      return { finding: trace.finding };
    } finally {
      trace.close();
    }
  } catch (error) {
    return { problem: unreadable(error) };
  }
}

export class DriverView {
  readonly #client: Pick<VfioUserClient, 'watchTrace'>;
  /** The recording of our own, which goes on as long as the connection; undefined: none yet; null: there can be none. */
  #ownFd: number | null | undefined;
  #trace: LiveTrace | undefined;
  /** The file that it is read from. */
  #path: string | undefined;

  constructor(client: Pick<VfioUserClient, 'watchTrace'>) {
    this.#client = client;
  }

  async look(state: TraceState | undefined): Promise<DriverLook> {
    try {
      const trace = await this.#current(state);
      trace?.look(monotonicNanoseconds());
      return trace === undefined ? {} : { finding: trace.finding, lines: trace.lines };
    } catch (error) {
      this.#leave();
      return { problem: unreadable(error) };
    }
  }

  close(): void {
    this.#leave();
    if (typeof this.#ownFd === 'number') {
      closeFd(this.#ownFd);
    }
  }

  async #current(state: TraceState | undefined): Promise<LiveTrace | undefined> {
    const path = (state?.on === true ? readable(state.path) : undefined) ?? (await this.#ownPath());
    if (path !== this.#path || this.#trace?.isReplaced === true) {
      this.#leave();
      this.#trace = path === undefined ? undefined : new LiveTrace(path, MOST_LINES);
      this.#path = path;
    }
    return this.#trace;
  }

  #leave(): void {
    this.#trace?.close();
    this.#trace = undefined;
    this.#path = undefined;
  }

  /** Undefined from a backend that can't. */
  async #ownPath(): Promise<string | undefined> {
    if (this.#ownFd === undefined) {
      this.#ownFd = null;
      const fd = createMemfd('status --watch', OWN_BYTES);
      try {
        await this.#client.watchTrace(fd);
        this.#ownFd = fd;
      } catch (error) {
        closeFd(fd);
        if (!(error instanceof RemoteError)) {
          throw error;
        }
      }
    }
    return this.#ownFd === null ? undefined : `/proc/self/fd/${this.#ownFd}`;
  }
}

/** The path, where this user may read what is there. */
function readable(path: string | null | undefined): string | undefined {
  try {
    accessSync(path ?? '', constants.R_OK);
    return path ?? undefined;
  } catch {
    return undefined;
  }
}

function unreadable(error: unknown): string {
  if (error instanceof UserError) {
    return situationOf(error);
  }
  throw error;
}
