// Whoever wants to know what happens to a device without having a say in it: a trace, metrics, a log. Called on the
// device thread in the order of events; must return at once and never throws.

import type { IrqRequest } from './physical-device.ts';

/** A piece of guest memory; `fds` is how many files came with it. */
export interface ObservedWindow {
  readonly address: bigint;
  readonly size: bigint;
  readonly flags: number;
  readonly fds: number;
}

/** Times in milliseconds of CLOCK_MONOTONIC; `what` is `stop`, `cont` or `command`. */
export interface ObservedGlueEvent {
  readonly at: number;
  readonly what: string;
  readonly text: string;
  readonly took: number;
}

/** `role` is the client's; the rest is for people. */
export type SessionDetail = { readonly role: string } & Readonly<Record<string, unknown>>;

/** `name` is the function's: `pf`, `vf0`, … */
export interface DeviceObserver {
  /** A write before it is carried out, a read with what was read. The data is only lent. */
  access(name: string, isWrite: boolean, region: number, offset: number, data: Uint8Array): void;
  dma(name: string, isMap: boolean, window: ObservedWindow): void;
  setIrqs(name: string, request: IrqRequest): void;
  /** `device`: the VMM's DEVICE_RESET; `function`: the guest's FLR. */
  reset(name: string, kind: 'device' | 'function'): void;
  /** A client is handed a BAR to map, and will use it unseen. */
  mapped(name: string, region: number): void;
  session(name: string, what: 'agreed' | 'gone', detail: SessionDetail): void;
  /** A message is dealt with, `milliseconds` after it came; `isLate` where others were served in between. Its answer follows. */
  answered(
    name: string,
    command: number,
    milliseconds: number,
    errno: number,
    isLate: boolean,
  ): void;
  hotplug(direction: 'sent' | 'received', message: string, detail: object): void;
  step(event: object, before: string, after: string): void;
  effect(effect: object): void;
  /** Work of the host; `milliseconds` and `error` once it is done. */
  host(name: string, detail: object, milliseconds?: number, error?: string): void;
  /** What the glue did, by its own clock: milliseconds of CLOCK_MONOTONIC. */
  glue(events: readonly ObservedGlueEvent[], lost: number): void;
  /** A client is about to see that something has happened: the last moment to note it where it outlives this process. */
  answering(): void;
  /** The turn of the loop is over. */
  turnEnded(): void;
}

/** An observer of some of it. */
export type PartialObserver = Partial<DeviceObserver>;

/** Tells several observers. Whoever asks `isEmpty` before an access pays nothing while nobody hears of accesses. */
export class Observers implements DeviceObserver {
  #all: readonly PartialObserver[] = [];
  #accesses: readonly PartialObserver[] = [];

  /** Nobody hears of accesses and of answers, which come by the hundred thousand. */
  get isEmpty(): boolean {
    return this.#accesses.length === 0;
  }

  add(observer: PartialObserver): void {
    this.#set([...this.#all, observer]);
  }

  remove(observer: PartialObserver): void {
    this.#set(this.#all.filter((each) => each !== observer));
  }

  #set(observers: readonly PartialObserver[]): void {
    this.#all = observers;
    this.#accesses = observers.filter(
      ({ access, answered }) => access !== undefined || answered !== undefined,
    );
  }

  access(...args: Parameters<DeviceObserver['access']>): void {
    for (const each of this.#accesses) {
      each.access?.(...args);
    }
  }

  dma(...args: Parameters<DeviceObserver['dma']>): void {
    for (const each of this.#all) {
      each.dma?.(...args);
    }
  }

  setIrqs(...args: Parameters<DeviceObserver['setIrqs']>): void {
    for (const each of this.#all) {
      each.setIrqs?.(...args);
    }
  }

  reset(...args: Parameters<DeviceObserver['reset']>): void {
    for (const each of this.#all) {
      each.reset?.(...args);
    }
  }

  mapped(...args: Parameters<DeviceObserver['mapped']>): void {
    for (const each of this.#all) {
      each.mapped?.(...args);
    }
  }

  session(...args: Parameters<DeviceObserver['session']>): void {
    for (const each of this.#all) {
      each.session?.(...args);
    }
  }

  answered(...args: Parameters<DeviceObserver['answered']>): void {
    for (const each of this.#accesses) {
      each.answered?.(...args);
    }
  }

  hotplug(...args: Parameters<DeviceObserver['hotplug']>): void {
    for (const each of this.#all) {
      each.hotplug?.(...args);
    }
  }

  step(...args: Parameters<DeviceObserver['step']>): void {
    for (const each of this.#all) {
      each.step?.(...args);
    }
  }

  effect(...args: Parameters<DeviceObserver['effect']>): void {
    for (const each of this.#all) {
      each.effect?.(...args);
    }
  }

  host(...args: Parameters<DeviceObserver['host']>): void {
    for (const each of this.#all) {
      each.host?.(...args);
    }
  }

  glue(...args: Parameters<DeviceObserver['glue']>): void {
    for (const each of this.#all) {
      each.glue?.(...args);
    }
  }

  answering(): void {
    for (const each of this.#accesses) {
      each.answering?.();
    }
  }

  turnEnded(): void {
    for (const each of this.#all) {
      each.turnEnded?.();
    }
  }
}
