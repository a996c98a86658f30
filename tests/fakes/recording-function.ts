// A function of a device that notes what it is asked, and answers when and how a test wants it; registers and memory
// are those of the function behind it.

import {
  type DeviceFunction,
  type DmaWindow,
  type Done,
  HostError,
  type IrqRequest,
} from '../../backend/device/physical-device.ts';

export class RecordingFunction implements DeviceFunction {
  readonly irqs: IrqRequest[] = [];
  readonly mapped: DmaWindow[] = [];
  readonly unmapped: DmaWindow[] = [];
  /** How often all was unmapped at once. */
  unmappedAll = 0;
  resets = 0;
  /** Reads of regions. */
  reads = 0;
  /** Writes of regions. */
  writes = 0;
  isClosed = false;
  /** Resets and maps are finished by `finish`, as by a host that takes its time. */
  isSlow = false;
  refusesIrqs = false;
  refusesMaps = false;
  refusesUnmaps = false;
  readonly #behind: DeviceFunction;
  readonly #unfinished: (() => void)[] = [];

  constructor(behind: DeviceFunction) {
    this.#behind = behind;
  }

  /** The host has done what it was asked first. */
  finish(): void {
    this.#unfinished.shift()?.();
  }

  readConfig(offset: number, length: 1 | 2 | 4): number {
    return this.#behind.readConfig(offset, length);
  }

  writeConfig(offset: number, length: 1 | 2 | 4, value: number): void {
    this.#behind.writeConfig(offset, length, value);
  }

  readRegion(region: number, offset: number, into: Uint8Array): void {
    this.reads++;
    this.#behind.readRegion(region, offset, into);
  }

  writeRegion(region: number, offset: number, from: Uint8Array): void {
    this.writes++;
    this.#behind.writeRegion(region, offset, from);
  }

  regionFile(region: number): { readonly fd: number; readonly offset: bigint } | undefined {
    return this.#behind.regionFile(region);
  }

  setIrqs(request: IrqRequest): void {
    if (this.refusesIrqs) {
      throw new HostError('VFIO_DEVICE_SET_IRQS', 22, 'function 0', 'EINVAL');
    }
    this.irqs.push({ ...request, ...(request.eventFds && { eventFds: [...request.eventFds] }) });
  }

  mapDma(window: DmaWindow, done: Done): void {
    this.mapped.push(window);
    this.#later(() =>
      done(this.refusesMaps ? new HostError('mapDma', 12, 'function 0', 'ENOMEM') : undefined),
    );
  }

  unmapDma(window: DmaWindow, done: Done): void {
    this.unmapped.push(window);
    this.#behind.unmapDma(window, done);
  }

  unmapAllDma(done: Done): void {
    this.unmappedAll++;
    done(this.refusesUnmaps ? new HostError('unmapAllDma', 5, 'function 0', 'EIO') : undefined);
  }

  reset(done: Done): void {
    this.resets++;
    this.#later(() => this.#behind.reset(done));
  }

  hostBusy(busy: boolean): void {
    this.#behind.hostBusy(busy);
  }

  close(): void {
    this.isClosed = true;
    this.#behind.close();
  }

  #later(work: () => void): void {
    if (this.isSlow) {
      this.#unfinished.push(work);
    } else {
      work();
    }
  }
}
