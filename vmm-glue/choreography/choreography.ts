// Plugs the VFs of several backends into the guest of one VMM, until all backends are gone: one channel for each, and one
// pause of the guest that they share.
import type { Clock } from '../../protocol/clock.ts';
import { ENABLE_LIMIT_MILLISECONDS } from '../../protocol/hotplug/timing.ts';
import type { Log, LogFields } from '../../protocol/log.ts';
import { BackendChannel, type HotplugSource } from './backend-channel.ts';
import type { EnableTiming } from './enable.ts';
import { GuestPause } from './guest-pause.ts';
import type { VmmControl } from './vmm-control.ts';

/** A backend: `name` is its PF's socket. */
export interface Backend {
  readonly name: string;
  readonly source: HotplugSource;
}

export interface ChoreographyOptions {
  readonly vmm: VmmControl;
  readonly clock: Clock;
  readonly log: Log;
  /** The longest that an enable may keep the guest paused; default 20000. */
  readonly enableLimitMilliseconds?: number;
  readonly onTiming?: (timing: EnableTiming) => void;
}

export class Choreography {
  readonly #options: ChoreographyOptions;
  readonly #pause: GuestPause;
  #channels: readonly BackendChannel[] = [];
  #isClosed = false;

  constructor(options: ChoreographyOptions) {
    const { vmm, clock, log } = options;
    this.#options = options;
    this.#pause = new GuestPause({ guest: vmm.guest, clock, log });
  }

  /** Resumes a guest that an earlier glue was ended over. */
  async inherit(): Promise<void> {
    await this.#pause.inherit();
  }

  /** Resolves when every backend has gone, with the guest running on. Once. */
  async serve(backends: readonly Backend[]): Promise<void> {
    this.#channels = backends.map((backend, index) => this.#channel(backend, index));
    await Promise.all(
      this.#channels.map(async (channel) => {
        await channel.serve();
        if (!this.#isClosed) {
          this.#options.log.error('the backend is gone; its devices in QEMU are dead', {
            backend: channel.name,
          });
        }
      }),
    );
  }

  /** The guest's CPUs run, whoever let them. */
  guestRuns(): void {
    this.#pause.guestRuns();
  }

  /** The VMM can be reached again. */
  async reconnected(isSameVmm: boolean): Promise<void> {
    await this.#pause.reconnected(isSameVmm);
  }

  /** Lets the guest run on, and the backends go. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all(this.#channels.map((channel) => channel.close()));
    await this.#pause.close();
  }

  #channel({ name, source }: Backend, index: number): BackendChannel {
    const { vmm, clock, log, onTiming } = this.#options;
    const channel: BackendChannel = new BackendChannel({
      name,
      source,
      pause: this.#pause,
      plugger: vmm.pluggerOf(index, this.#pause, (firstVf, text) => channel.trapped(firstVf, text)),
      clock,
      log,
      limitMilliseconds: this.#options.enableLimitMilliseconds ?? ENABLE_LIMIT_MILLISECONDS,
      onTiming: (timing) => {
        log.info(`${timing.placedVfs} VFs placed`, rounded(timing));
        onTiming?.(timing);
      },
    });
    return channel;
  }
}

/** Times to the microsecond. */
function rounded(timing: EnableTiming): LogFields {
  const round = (value: unknown): unknown =>
    typeof value === 'number' ? Math.round(value * 1000) / 1000 : value;
  return Object.fromEntries(Object.entries(timing).map(([key, value]) => [key, round(value)]));
}
