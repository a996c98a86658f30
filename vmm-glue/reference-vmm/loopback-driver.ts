// A guest's driver for the loopback device (PF and VFs alike): identity, scratch, doorbells and the copying DMA engine,
// all in BAR 0. Registers are 32-bit, little-endian, in the first page.

import { MAGIC, Register, StatusText } from './loopback-registers.ts';
import type { PciFunction } from './pci-function.ts';

const BAR = 0;
const POLLS = 1000;

export class LoopbackDriver {
  readonly #function: PciFunction;

  constructor(pciFunction: PciFunction) {
    this.#function = pciFunction;
  }

  /** Checks the magic number; `functionNumber` 0 is the PF, 1 + vfIndex a VF; `generation` counts its bring-ups. */
  async probe(): Promise<{ functionNumber: number; generation: number }> {
    const magic = await this.#read(Register.magic);
    if (magic !== MAGIC) {
      throw new Error(
        `${this.#function.name}: its first register reads 0x${magic.toString(16)}, a loopback device's reads 0x${MAGIC.toString(16)}`,
      );
    }
    return {
      functionNumber: await this.#read(Register.functionNumber),
      generation: await this.#read(Register.generation),
    };
  }

  async setScratch(value: number): Promise<void> {
    await this.#write(Register.scratch, value);
  }

  scratch(): Promise<number> {
    return this.#read(Register.scratch);
  }

  /** Raises an MSI-X vector. */
  async ring(vector: number): Promise<void> {
    await this.#write(Register.doorbell, vector);
  }

  /** Copies guest memory and raises `vector`; resolves when the device says that it is done, rejects with its error. */
  async copy(job: {
    source: bigint;
    destination: bigint;
    length: number;
    vector: number;
  }): Promise<void> {
    await this.#writeAddress(Register.sourceLow, job.source);
    await this.#writeAddress(Register.destinationLow, job.destination);
    await this.#write(Register.length, job.length);
    await this.#write(Register.doneVector, job.vector);
    await this.#write(Register.start, 1);
    for (let poll = 0; poll < POLLS; poll += 1) {
      const status = await this.#read(Register.status);
      if (status === 1) {
        return;
      }
      if (status > 1) {
        throw new Error(`${this.#function.name}: DMA failed: ${StatusText[status] ?? status}`);
      }
    }
    throw new Error(`${this.#function.name}: DMA is not done after ${POLLS} looks`);
  }

  async #writeAddress(lowRegister: number, address: bigint): Promise<void> {
    await this.#write(lowRegister, Number(address & 0xffffffffn));
    await this.#write(lowRegister + 4, Number(address >> 32n));
  }

  #read(register: number): Promise<number> {
    return this.#function.readRegister(BAR, register);
  }

  #write(register: number, value: number): Promise<void> {
    return this.#function.writeRegister(BAR, register, value);
  }
}
