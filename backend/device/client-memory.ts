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

/** Of many windows that are unmapped at once, so many are before the other clients have their turn. */
export const WINDOWS_OF_A_TURN = 256;

export class ClientMemory {
  readonly windows: DmaWindows;
  /** DMA_MAPs that were refused, until the client has gone. */
  readonly failedMaps = new FailedMaps();
  readonly #hardware: () => DeviceFunction | undefined;

  /** `hardware`: what is behind the function at the moment. */
  constructor(hardware: () => DeviceFunction | undefined, maxDmaMaps?: number) {
    this.#hardware = hardware;
    this.windows = new DmaWindows(maxDmaMaps);
  }

  /** What has a file behind it. */
  get reachable(): readonly DmaWindow[] {
    return this.windows.all.filter(({ fd }) => fd !== NO_FILE);
  }

  /** Takes over the window's fd. `done` comes when the hardware can reach the memory. @throws WireError, SyscallError for want of fds */
  map(window: DmaWindow, done: Done): void {
    const kept = this.windows.add(window);
    const hardware = this.#hardware();
    if (kept.fd === NO_FILE || hardware === undefined) {
      done();
      return;
    }
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
  unmap(address: bigint, size: bigint, done: Done, later: (rest: () => void) => void): void {
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

  /** The client has gone. */
  clear(): void {
    for (const window of this.windows.all) {
      this.#unmapFromHardware(window, () => {});
    }
    this.windows.clear();
    this.failedMaps.clear();
  }

  /** Hands it to hardware that was opened after the client had mapped it; `known` is what that has already. */
  replayOnto(
    hardware: DeviceFunction,
    known: readonly DmaWindow[],
    failed: (error: HostError) => void,
  ): void {
    const [before, now] = [new Set(known), new Set(this.reachable)];
    for (const window of before) {
      if (!now.has(window)) {
        hardware.unmapDma(window, () => {});
      }
    }
    for (const window of now) {
      if (before.has(window)) {
        continue;
      }
      this.#mapOnto(hardware, window, (error) => {
        if (error !== undefined) {
          failed(error);
        }
      });
    }
  }

  /** Takes it from hardware that is about to close. */
  withdrawFrom(hardware: DeviceFunction): void {
    for (const window of this.reachable) {
      hardware.unmapDma(window, () => {});
    }
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
    if (window.fd === NO_FILE || hardware === undefined) {
      done();
    } else {
      hardware.unmapDma(window, done);
    }
  }
}
