// One open VFIO function on the device thread: config space and trapped BAR accesses by pread and pwrite, interrupts by
// VFIO_DEVICE_SET_IRQS; what waits for the host goes over the HostLink. The device file belongs to the main thread.
import { Errno, errnoName } from '../../../../protocol/errno.ts';
import { allOnes, loadUint, storeUint } from '../../../../protocol/little-endian.ts';
import { IrqIndex, RegionIndex } from '../../../../protocol/vfio-user/commands.ts';
import { IrqSet, IrqSetFlag } from '../../../../protocol/vfio-user/messages.ts';
import {
  type DeviceFunction,
  type DmaWindow,
  type Done,
  type FunctionHandle,
  type FunctionShape,
  HostError,
  type HostLink,
  type IrqRequest,
  PF_INDEX,
} from '../../../device/physical-device.ts';
import { maskOf } from '../../../pci/registers.ts';
import { CONFIG_BYTES, HEADER } from '../../../pci/spec/header.ts';
import { VfioRequest } from './abi.ts';
import { ConfigShadow } from './config-shadow.ts';
import type { DeviceCalls } from './kernel-calls.ts';

/** A function that the main thread has opened. */
export interface VfioHandle extends FunctionHandle {
  readonly deviceFd: number;
  /** Of each region, its offset in the device file. */
  readonly regionOffsets: readonly bigint[];
  readonly shape: FunctionShape;
}

const MEMORY_SPACE_ENABLE = maskOf(HEADER.command, 'memorySpaceEnable');

export class VfioFunction implements DeviceFunction {
  readonly #calls: DeviceCalls;
  readonly #handle: VfioHandle;
  readonly #link: HostLink;
  readonly #configOffset: number;
  /** A VF has none: while the host writes sriov_numvfs there is no VF, and making one takes time. */
  readonly #shadow: ConfigShadow | undefined;
  // Accesses are never nested, so that one buffer per size serves them all.
  readonly #buffers = { 1: new Uint8Array(1), 2: new Uint8Array(2), 4: new Uint8Array(4) } as const;
  #isHostBusy = false;

  constructor(calls: DeviceCalls, handle: VfioHandle, link: HostLink) {
    this.#calls = calls;
    this.#handle = handle;
    this.#link = link;
    this.#configOffset = Number(handle.regionOffsets[RegionIndex.config]!);
    this.#shadow = handle.index === PF_INDEX ? new ConfigShadow(handle.shape.config) : undefined;
  }

  readConfig(offset: number, length: 1 | 2 | 4): number {
    const shadow = this.#shadow;
    if (this.#isHostBusy && shadow !== undefined) {
      return shadow.read(offset, length);
    }
    const buffer = this.#buffers[length];
    const got = this.#calls.readAt(this.#handle.deviceFd, buffer, this.#configOffset + offset);
    // A device that has gone answers as the bus does.
    if (got !== length) {
      return allOnes(length);
    }
    shadow?.observe(offset, buffer);
    return loadUint(buffer, 0, length);
  }

  writeConfig(offset: number, length: 1 | 2 | 4, value: number): void {
    const write = { offset, length, value: this.#withVfMemory(offset, value) };
    const shadow = this.#shadow;
    if (this.#isHostBusy && shadow !== undefined) {
      shadow.queue(write);
      return;
    }
    const buffer = this.#buffers[length];
    storeUint(buffer, 0, length, write.value);
    this.#calls.writeAt(this.#handle.deviceFd, buffer, this.#configOffset + offset);
    shadow?.write(write);
  }

  readRegion(region: number, offset: number, into: Uint8Array): void {
    const at = this.#regionOffset(region) + offset;
    const got = this.#calls.readAt(this.#handle.deviceFd, into, at);
    // EIO: memory space is off, or the device has gone. A guest sees what a bus without an answer gives.
    if (got !== into.length) {
      into.fill(0xff, Math.max(got, 0));
    }
  }

  writeRegion(region: number, offset: number, from: Uint8Array): void {
    this.#calls.writeAt(this.#handle.deviceFd, from, this.#regionOffset(region) + offset);
  }

  regionFile(region: number): { readonly fd: number; readonly offset: bigint } | undefined {
    const shape = this.#handle.shape.regions.find(({ index }) => index === region);
    const offset = this.#handle.regionOffsets[region];
    if (shape === undefined || offset === undefined || shape.mappable.length === 0) {
      return undefined;
    }
    return { fd: this.#handle.deviceFd, offset };
  }

  setIrqs(request: IrqRequest): void {
    // The kernel's release request goes to the main thread, which passes it on (PhysicalDevice.onReleaseRequested).
    if (request.index === IrqIndex.req) {
      return;
    }
    const argument = encodeIrqSet(request);
    const { deviceFd } = this.#handle;
    const result = this.#calls.ioctl(deviceFd, VfioRequest.deviceSetIrqs, argument);
    if (result >= 0) {
      return;
    }
    // The kernel calls it an error to disable what is not enabled.
    if (result === -Errno.EINVAL && isDisable(request)) {
      return;
    }
    throw new HostError(
      'VFIO_DEVICE_SET_IRQS',
      -result,
      `function ${this.#handle.index}`,
      `index ${request.index}, vectors ${request.start}..${request.start + request.count - 1}, flags 0x${request.flags.toString(16)} refused (${errnoName(-result)})`,
    );
  }

  mapDma(window: DmaWindow, done: Done): void {
    this.#link.request('mapDma', [this.#handle.index, window], (error) => done(error));
  }

  unmapDma(window: DmaWindow, done: Done): void {
    this.#link.request('unmapDma', [this.#handle.index, window], (error) => done(error));
  }

  unmapAllDma(done: Done): void {
    this.#link.request('unmapAllDma', [this.#handle.index], (error) => done(error));
  }

  reset(done: Done): void {
    this.#link.request('resetFunction', [this.#handle.index], (error) => done(error));
  }

  /** The device file belongs to the main thread. */
  close(): void {}

  hostBusy(busy: boolean): void {
    const shadow = this.#shadow;
    if (shadow === undefined || busy === this.#isHostBusy) {
      return;
    }
    if (busy) {
      // All that changes by itself.
      const standard = new Uint8Array(CONFIG_BYTES);
      const { deviceFd } = this.#handle;
      const got = this.#calls.readAt(deviceFd, standard, this.#configOffset);
      if (got === standard.length) {
        shadow.observe(0, standard);
      }
    }
    this.#isHostBusy = busy;
    if (busy) {
      return;
    }
    for (const { offset, length, value } of shadow.takeWrites()) {
      this.writeConfig(offset, length, value);
    }
  }

  // The PF switches its VFs' memory on; a VF has no such bit of its own. Emulated cards have one all the same and fall
  // silent without it (QEMU's igb), so what the kernel set when it opened the VF stays set.
  #withVfMemory(offset: number, value: number): number {
    const isVfCommand = this.#handle.index !== PF_INDEX && offset === HEADER.command.offset;
    return isVfCommand ? (value | MEMORY_SPACE_ENABLE) >>> 0 : value;
  }

  #regionOffset(region: number): number {
    return Number(this.#handle.regionOffsets[region]!);
  }
}

function isDisable({ flags, count }: IrqRequest): boolean {
  return flags === (IrqSetFlag.dataNone | IrqSetFlag.actionTrigger) && count === 0;
}

/** The ioctl's argument; vectors without an eventfd get -1, which VFIO takes for "enabled, but deaf". */
export function encodeIrqSet(request: IrqRequest): Uint8Array {
  const { index, start, count, flags, bools, eventFds } = request;
  const isEventFd = (flags & IrqSetFlag.dataEventFd) !== 0;
  const isBool = (flags & IrqSetFlag.dataBool) !== 0;
  const dataBytes = isEventFd ? 4 * count : isBool ? count : 0;
  const argument = new Uint8Array(IrqSet.size + dataBytes);
  IrqSet.encode({ argsz: argument.length, flags, index, start, count }, argument);
  const view = new DataView(argument.buffer);
  for (let i = 0; i < count; i++) {
    if (isEventFd) {
      view.setInt32(IrqSet.size + 4 * i, eventFds?.[i] ?? -1, true);
    }
    if (isBool) {
      view.setUint8(IrqSet.size + i, bools?.[i] === true ? 1 : 0);
    }
  }
  return argument;
}
