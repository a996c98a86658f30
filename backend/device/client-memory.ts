// Guest memory that the client of one function has mapped, and the same in the function's hardware, which may come after
// it, go before it, and take its time. Called by ServedFunction.

import { closeFd } from '../../protocol/unix/libc.ts';
import { dupFd } from '../../protocol/unix/memory.ts';
import { countdown } from './countdown.ts';
import { DmaWindows } from './dma-windows.ts';
import { FailedMaps } from './failed-maps.ts';
import {
  type DeviceFunction,
  type DmaWindow,
  type Done,
  type HostError,
  NO_FILE,
} from './physical-device.ts';

/** Of many windows that are worked on at once, so many are before the other clients have their turn. */
export const WINDOWS_OF_A_TURN = 256;

/** Has the rest done when the others have had their turn. */
export type Later = (rest: () => void) => void;

/** What hardware that is being opened has been told of this memory, and what has changed since. */
interface Handover {
  /** What lies below this address has been told. */
  upTo: bigint;
  /** Of that, what the client has unmapped. */
  readonly gone: DmaWindow[];
  /** What it has mapped there, and whom to tell when the hardware can reach it. */
  readonly fresh: Map<DmaWindow, Done>;
  /** The client has gone since: nothing that was told holds. */
  isVoid: boolean;
}

const EVERYTHING = 1n << 64n;

export class ClientMemory {
  readonly windows: DmaWindows;
  /** DMA_MAPs that were refused, until the client has gone. */
  readonly failedMaps = new FailedMaps();
  readonly #hardware: () => DeviceFunction | undefined;
  #handover: Handover | undefined;

  /** `hardware`: what is behind the function at the moment. */
  constructor(hardware: () => DeviceFunction | undefined, maxDmaMaps?: number) {
    this.#hardware = hardware;
    this.windows = new DmaWindows(maxDmaMaps);
  }

  /** Takes over the window's fd. `done` comes when the hardware can reach the memory. @throws WireError, SyscallError for want of fds */
  map(window: DmaWindow, done: Done): void {
    const kept = this.windows.add(window);
    const hardware = this.#hardware();
    const handover = this.#handover;
    if (kept.fd !== NO_FILE && handover !== undefined && kept.address < handover.upTo) {
      // Behind what is to be unmapped of the hardware, maybe at the same address.
      handover.fresh.set(kept, hardware === undefined ? () => {} : done);
    } else if (kept.fd !== NO_FILE && hardware !== undefined) {
      this.#mapNow(hardware, kept, done);
      return;
    }
    if (hardware === undefined || kept.fd === NO_FILE) {
      done();
    }
  }

  #mapNow(hardware: DeviceFunction, kept: DmaWindow, done: Done): void {
    try {
      this.#mapOnto(hardware, kept, done);
    } catch (error) {
      this.#mapFailed(hardware, kept, error as Error);
      throw error;
    }
  }

  /**
   * Unmaps every window inside the range; `done` comes when nothing refers to the memory any more. A client may have tens
   * of thousands of them: what is more than `WINDOWS_OF_A_TURN` is passed to `later`, for when others have had their turn.
   */
  unmap(address: bigint, size: bigint, done: Done, later: Later): void {
    let failure: HostError | undefined;
    const unmapSome = (): void => {
      const windows = this.windows.lastInside(address, size, WINDOWS_OF_A_TURN);
      const oneIsUnmapped = countdown(windows.length, () => {
        this.windows.remove(windows);
        if (windows.length < WINDOWS_OF_A_TURN) {
          done(failure);
        } else {
          later(unmapSome);
        }
      });
      for (const window of windows) {
        this.#unmapFromHardware(window, (error) => {
          failure ??= error;
          oneIsUnmapped();
        });
      }
    };
    unmapSome();
  }

  /** The client has gone. However many windows it had, hardware is told once; `done` when nothing refers to the memory any more. */
  clear(done: Done): void {
    const hardware = this.#hardware();
    const handover = this.#handover;
    if (handover !== undefined) {
      forgetIn(handover);
      handover.isVoid = hardware === undefined;
    }
    this.windows.clear();
    this.failedMaps.clear();
    if (hardware === undefined) {
      done();
    } else {
      hardware.unmapAllDma(done);
    }
  }

  /**
   * Tells of all that has a file behind it, for hardware that is to be opened: `replayOnto` makes up for what changes until
   * then. Of many windows some are told `later`, and an error of `tell` comes with `done`.
   */
  handOver(
    tell: (windows: readonly DmaWindow[]) => void,
    later: Later,
    done: (error?: Error) => void,
  ): void {
    const handover: Handover = { upTo: 0n, gone: [], fresh: new Map(), isVoid: false };
    this.#handover = handover;
    const tellSome = (): void => {
      const windows = this.windows.from(handover.upTo, WINDOWS_OF_A_TURN);
      const isLast = windows.length < WINDOWS_OF_A_TURN;
      const reachable = windows.filter(({ fd }) => fd !== NO_FILE);
      try {
        if (reachable.length > 0) {
          tell(reachable);
        }
      } catch (error) {
        done(error as Error);
        return;
      }
      const { address, size } = windows.at(-1) ?? { address: 0n, size: 0n };
      handover.upTo = isLast ? EVERYTHING : address + size;
      if (isLast) {
        done();
      } else {
        later(tellSome);
      }
    };
    tellSome();
  }

  /**
   * Has hardware that was opened after the client mapped its memory know all of it. Where much has changed since `handOver`,
   * some is done `later`; `done` comes unless the hardware goes before.
   */
  replayOnto(
    hardware: DeviceFunction,
    failed: (error: HostError) => void,
    later: Later,
    done: () => void,
  ): void {
    this.#handover ??= this.#handoverOfAll();
    const handover = this.#handover;
    const replaySome = (): void => {
      if (this.#handover !== handover) {
        return;
      }
      if (handover.isVoid) {
        handover.isVoid = false;
        hardware.unmapAllDma(() => {});
      }
      const gone = handover.gone.splice(0, WINDOWS_OF_A_TURN);
      for (const window of gone) {
        hardware.unmapDma(window, () => {});
      }
      const fresh = [...take(handover.fresh, WINDOWS_OF_A_TURN - gone.length)];
      for (const [window, mapped] of fresh) {
        handover.fresh.delete(window);
        this.#mapOnto(hardware, window, (error) => {
          if (error !== undefined) {
            failed(error);
          }
          mapped(error);
        });
      }
      if (handover.gone.length + handover.fresh.size > 0) {
        later(replaySome);
      } else {
        this.#handover = undefined;
        done();
      }
    };
    replaySome();
  }

  /** The hardware is about to close, or was not opened: whoever opens it the next time is told anew. */
  hardwareGone(): void {
    const handover = this.#handover;
    this.#handover = undefined;
    if (handover !== undefined) {
      forgetIn(handover);
    }
  }

  #handoverOfAll(): Handover {
    const reachable = this.windows.all.filter(({ fd }) => fd !== NO_FILE);
    return {
      upTo: EVERYTHING,
      gone: [],
      fresh: new Map(reachable.map((window) => [window, () => {}])),
      isVoid: false,
    };
  }

  /** The host maps in its own time, with an fd of its own: the client may unmap or leave before it has finished. */
  #mapOnto(hardware: DeviceFunction, window: DmaWindow, done: Done): void {
    const fd = dupFd(window.fd);
    hardware.mapDma({ ...window, fd }, (error) => {
      closeFd(fd);
      if (error !== undefined) {
        this.#mapFailed(hardware, window, error);
      }
      done(error);
    });
  }

  #mapFailed(hardware: DeviceFunction, window: DmaWindow, error: Error): void {
    if (this.windows.remove([window]) === 0) {
      return;
    }
    const range = `0x${window.address.toString(16)}+0x${window.size.toString(16)}`;
    this.failedMaps.add(`guest memory ${range} could not be mapped: ${error.message}`);
    hardware.unmapDma(window, () => {});
  }

  #unmapFromHardware(window: DmaWindow, done: Done): void {
    const hardware = this.#hardware();
    const handover = this.#handover;
    if (window.fd === NO_FILE) {
      done();
      return;
    }
    const pending = handover?.fresh.get(window);
    if (pending !== undefined) {
      handover?.fresh.delete(window);
      pending();
      done();
    } else if (hardware === undefined) {
      if (handover !== undefined && window.address < handover.upTo) {
        handover.gone.push(window);
      }
      done();
    } else {
      hardware.unmapDma(window, done);
    }
  }
}

/** What is mapped from here on is all that there is. */
function forgetIn(handover: Handover): void {
  const fresh = [...handover.fresh.values()];
  handover.upTo = EVERYTHING;
  handover.gone.length = 0;
  handover.fresh.clear();
  for (const mapped of fresh) {
    mapped();
  }
}

function* take<T>(items: Iterable<T>, most: number): Iterable<T> {
  let left = most;
  for (const item of items) {
    if (left-- <= 0) {
      return;
    }
    yield item;
  }
}
