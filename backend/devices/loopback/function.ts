// One function of the loopback device, in RAM: registers that raise interrupts, a small DMA engine, plain memory.
// The memory pages are a memfd, which a VMM can map.

import { constants } from 'node:os';
import { WireError } from '../../../protocol/errno.ts';
import { loadUint, storeUint } from '../../../protocol/little-endian.ts';
import { closeFd } from '../../../protocol/unix/libc.ts';
import { createMemfd, readAt, writeAt } from '../../../protocol/unix/memory.ts';
import { IrqIndex } from '../../../protocol/vfio-user/commands.ts';
import { IrqSetFlag } from '../../../protocol/vfio-user/messages.ts';
import {
  type DeviceFunction,
  type DmaWindow,
  type Done,
  type FunctionWires,
  HostError,
  type IrqRequest,
  PF_INDEX,
} from '../../device/physical-device.ts';
import type { LoopbackConfig } from './config.ts';
import { DMA_LIMIT, DmaStatus, Layout, MAGIC, READ_WRITE, Register } from './registers.ts';

const REGISTER_BYTES = Layout.msixTable;

export class LoopbackFunction implements DeviceFunction {
  readonly #index: number;
  readonly #generation: number;
  readonly #config: LoopbackConfig;
  readonly #wires: FunctionWires;
  readonly #registers = new DataView(new ArrayBuffer(REGISTER_BYTES));
  /** The whole BAR as a file: MSI-X page and memory; the register page of it is never used. */
  readonly #memory: number;
  readonly #piece = new Uint8Array(4);

  constructor(
    index: number,
    generation: number,
    barSize: number,
    config: LoopbackConfig,
    wires: FunctionWires,
  ) {
    this.#index = index;
    this.#generation = generation;
    this.#config = config;
    this.#wires = wires;
    this.#memory = createMemfd(index === PF_INDEX ? 'loopback-pf' : `loopback-vf${index}`, barSize);
    this.#resetRegisters();
  }

  readConfig(offset: number, length: 1 | 2 | 4): number {
    this.#config.space.read(offset, length, this.#piece);
    return loadUint(this.#piece, 0, length);
  }

  writeConfig(offset: number, length: 1 | 2 | 4, value: number): void {
    const bytes = new Uint8Array(length);
    storeUint(bytes, 0, length, value);
    this.#config.space.write(offset, bytes);
  }

  readRegion(_region: number, offset: number, into: Uint8Array): void {
    const registers = Math.max(0, Math.min(into.length, REGISTER_BYTES - offset));
    for (let i = 0; i < registers; i++) {
      into[i] = this.#registers.getUint8(offset + i);
    }
    if (registers < into.length) {
      this.#checked('pread', readAt(this.#memory, into.subarray(registers), offset + registers));
    }
  }

  writeRegion(_region: number, offset: number, from: Uint8Array): void {
    const registers = Math.max(0, Math.min(from.length, REGISTER_BYTES - offset));
    for (let at = 0; at < registers; ) {
      at += this.#writeRegister(offset + at, from.subarray(at, registers));
    }
    if (registers < from.length) {
      this.#checked('pwrite', writeAt(this.#memory, from.subarray(registers), offset + registers));
    }
  }

  regionFile(): { fd: number; offset: bigint } {
    return { fd: this.#memory, offset: 0n };
  }

  /** The session's eventfds are reached through the wires: there is nothing of its own to bind. */
  setIrqs({ index, flags }: IrqRequest): void {
    const isMask = (flags & (IrqSetFlag.actionMask | IrqSetFlag.actionUnmask)) !== 0;
    if (isMask && (flags & IrqSetFlag.dataEventFd) !== 0) {
      throw new WireError('EINVAL', `SET_IRQS index ${index}: masking by eventfd`);
    }
  }

  mapDma(_window: DmaWindow, done: Done): void {
    done();
  }

  unmapDma(_window: DmaWindow, done: Done): void {
    done();
  }

  reset(done: Done): void {
    this.#config.reset();
    this.#resetRegisters();
    done();
  }

  hostBusy(_busy: boolean): void {}

  close(): void {
    closeFd(this.#memory);
  }

  #resetRegisters(): void {
    new Uint8Array(this.#registers.buffer).fill(0);
    this.#set(Register.magic, MAGIC);
    this.#set(Register.functionNumber, this.#index + 1);
    this.#set(Register.generation, this.#generation);
  }

  /** Takes an aligned register, or a byte of one; gives how many bytes it took. */
  #writeRegister(offset: number, bytes: Uint8Array): number {
    if (offset % 4 !== 0 || bytes.length < 4) {
      if (READ_WRITE.includes(offset & ~3)) {
        this.#registers.setUint8(offset, bytes[0]!);
      }
      return 1;
    }
    const value = loadUint(bytes, 0, 4);
    if (READ_WRITE.includes(offset)) {
      this.#set(offset, value);
    } else if (offset === Register.doorbell) {
      this.#ring(value);
    } else if (offset === Register.dmaStart && value === 1) {
      this.#copy();
    }
    return 4;
  }

  #ring(vector: number): void {
    if (this.#raise(vector)) {
      this.#set(Register.doorbellCount, this.#get(Register.doorbellCount) + 1);
    }
  }

  #raise(vector: number): boolean {
    if (!this.#config.busMasterEnable()) {
      return false;
    }
    return this.#wires.raise(IrqIndex.msix, vector) || this.#wires.raise(IrqIndex.msi, vector);
  }

  #copy(): void {
    this.#set(Register.dmaStatus, this.#copyMemory());
    this.#raise(this.#get(Register.dmaVector));
  }

  #copyMemory(): number {
    if (!this.#config.busMasterEnable()) {
      return DmaStatus.busMasterOff;
    }
    const length = this.#get(Register.dmaLength);
    if (length === 0 || length > DMA_LIMIT) {
      return DmaStatus.badLength;
    }
    const bytes = new Uint8Array(length);
    const source = this.#address(Register.dmaSourceLow);
    const destination = this.#address(Register.dmaDestinationLow);
    if (!this.#wires.readMemory(source, bytes)) {
      return DmaStatus.notMapped;
    }
    if (!this.#wires.writeMemory(destination, bytes)) {
      return DmaStatus.notMapped;
    }
    return DmaStatus.done;
  }

  #address(low: number): bigint {
    return this.#registers.getBigUint64(low, true);
  }

  #get(register: number): number {
    return this.#registers.getUint32(register, true);
  }

  #set(register: number, value: number): void {
    this.#registers.setUint32(register, value >>> 0, true);
  }

  #checked(call: string, result: number): void {
    if (result >= 0) {
      return;
    }
    const name = Object.entries(constants.errno).find(([, number]) => number === -result)?.[0];
    throw new HostError(call, -result, 'loopback memory', name ?? `errno ${-result}`);
  }
}
