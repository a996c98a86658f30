// A minimal NVMe driver on a DeviceFunction: the admin queue by real DMA, completions by MSI-X. NVM Express Base
// Specification 1.4, "Controller Registers" and "Admin Command Set".
import { strict as assert } from 'node:assert';
import type { DeviceFunction } from '../../../../backend/device/physical-device.ts';
import { createEventFd, drainEventFd } from '../../../../protocol/unix/eventfd.ts';
import { readAt, writeAt } from '../../../../protocol/unix/memory.ts';
import { IrqIndex } from '../../../../protocol/vfio-user/commands.ts';
import { IrqSetFlag } from '../../../../protocol/vfio-user/messages.ts';
import { readRegister, switchOn, writeRegister } from './igb.ts';
import { until } from './scenario.ts';

const CC = 0x14;
const CSTS = 0x1c;
const AQA = 0x24;
const ASQ = 0x28;
const ACQ = 0x30;
const SUBMISSION_DOORBELL = 0x1000;
const COMPLETION_DOORBELL = 0x1004;
const ENABLED = 0x0046_0001;
const ENTRIES = 32;
/** Where the parts lie in the driver's memory, bytes. */
const SUBMISSIONS = 0;
const COMPLETIONS = 0x1000;
const DATA = 0x2000;
/** Bytes of memory that one driver takes. */
export const NVME_MEMORY = 0x3000;

/** Memory of the "guest": a file, and the bus address at which the device sees its start. */
export interface DriverMemory {
  readonly fd: number;
  readonly fileOffset: number;
  readonly address: number;
}

export class NvmeDriver {
  readonly #fn: DeviceFunction;
  readonly #memory: DriverMemory;
  readonly #interrupt = createEventFd();
  #tail = 0;
  #head = 0;
  #phase = 1;
  /** Interrupts that came. */
  interrupts = 0;

  constructor(fn: DeviceFunction, memory: DriverMemory) {
    this.#fn = fn;
    this.#memory = memory;
  }

  /** Takes vector 0 and starts the controller. */
  async start(): Promise<void> {
    switchOn(this.#fn);
    this.#fn.setIrqs({
      index: IrqIndex.msix,
      start: 0,
      count: 1,
      flags: IrqSetFlag.dataEventFd | IrqSetFlag.actionTrigger,
      eventFds: [this.#interrupt],
    });
    await this.restart();
  }

  /** Controller reset: queues are empty afterwards. */
  async restart(): Promise<void> {
    writeRegister(this.#fn, CC, 0);
    await until('the controller stops', () => (readRegister(this.#fn, CSTS) & 1) === 0);
    this.#write(SUBMISSIONS, new Uint8Array(NVME_MEMORY));
    [this.#tail, this.#head, this.#phase] = [0, 0, 1];
    writeRegister(this.#fn, AQA, ((ENTRIES - 1) << 16) | (ENTRIES - 1));
    writeRegister(this.#fn, ASQ, this.#memory.address + SUBMISSIONS);
    writeRegister(this.#fn, ASQ + 4, 0);
    writeRegister(this.#fn, ACQ, this.#memory.address + COMPLETIONS);
    writeRegister(this.#fn, ACQ + 4, 0);
    writeRegister(this.#fn, CC, ENABLED);
    await until('the controller starts', () => (readRegister(this.#fn, CSTS) & 1) === 1);
  }

  /** Identify: the controller's 4096 bytes, which it writes by DMA. */
  async identify(): Promise<Uint8Array> {
    await this.command(0x06, { cdw10: 1 });
    return this.#read(DATA, 4096);
  }

  /** Sends an admin command and waits for the interrupt that tells its completion. */
  async command(opcode: number, { cdw10 = 0, cdw11 = 0 } = {}): Promise<void> {
    const entry = new DataView(new ArrayBuffer(64));
    entry.setUint32(0, opcode | (this.#tail << 16), true);
    entry.setUint32(24, this.#memory.address + DATA, true);
    entry.setUint32(40, cdw10, true);
    entry.setUint32(44, cdw11, true);
    this.#write(SUBMISSIONS + 64 * this.#tail, new Uint8Array(entry.buffer));
    this.#tail = (this.#tail + 1) % ENTRIES;
    writeRegister(this.#fn, SUBMISSION_DOORBELL, this.#tail);
    await until('the completion interrupt', () => drainEventFd(this.#interrupt) > 0n);
    this.interrupts++;
    const completion = this.#read(COMPLETIONS + 16 * this.#head, 16);
    const status = new DataView(completion.buffer).getUint16(14, true);
    assert.equal(status & 1, this.#phase, 'the completion is there when its interrupt comes');
    assert.equal(status >> 1, 0, `status of admin command 0x${opcode.toString(16)}`);
    this.#head = (this.#head + 1) % ENTRIES;
    if (this.#head === 0) this.#phase ^= 1;
    writeRegister(this.#fn, COMPLETION_DOORBELL, this.#head);
  }

  #write(at: number, bytes: Uint8Array): void {
    writeAt(this.#memory.fd, bytes, this.#memory.fileOffset + at);
  }

  #read(at: number, length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    assert.equal(readAt(this.#memory.fd, bytes, this.#memory.fileOffset + at), length);
    return bytes;
  }
}

/** Serial number and model out of an Identify Controller structure. */
export function namesOf(identify: Uint8Array): { serial: string; model: string } {
  const text = (from: number, to: number) =>
    new TextDecoder().decode(identify.subarray(from, to)).trim();
  return { serial: text(4, 24), model: text(24, 64) };
}
