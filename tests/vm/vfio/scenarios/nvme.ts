// A minimal NVMe driver: the admin queue by real DMA, completions by MSI-X. It reaches the controller through a link:
// straight (`deviceLink`), or as a guest does (nvme-guest.ts). NVM Express Base Specification 1.4, "Controller Registers"
// and "Admin Command Set".
import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
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
const READY_PATIENCE = 5_000;
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

/** How the driver reaches a controller: registers of BAR 0, and MSI-X vector 0. */
export interface NvmeLink {
  /** Switches the function on and takes vector 0. */
  connect(): Promise<void>;
  read(offset: number): Promise<number>;
  write(offset: number, value: number): Promise<void>;
  /** Waits for the next interrupt. */
  interrupt(): Promise<void>;
}

/** A link straight to an open function. */
export function deviceLink(fn: DeviceFunction): NvmeLink {
  const eventFd = createEventFd();
  return {
    async connect() {
      switchOn(fn);
      fn.setIrqs({
        index: IrqIndex.msix,
        start: 0,
        count: 1,
        flags: IrqSetFlag.dataEventFd | IrqSetFlag.actionTrigger,
        eventFds: [eventFd],
      });
    },
    read: async (offset) => readRegister(fn, offset),
    write: async (offset, value) => writeRegister(fn, offset, value),
    interrupt: () => until('the completion interrupt', () => drainEventFd(eventFd) > 0n),
  };
}

export class NvmeDriver {
  readonly #link: NvmeLink;
  readonly #memory: DriverMemory;
  #tail = 0;
  #head = 0;
  #phase = 1;
  /** Interrupts that came. */
  interrupts = 0;

  constructor(link: NvmeLink, memory: DriverMemory) {
    this.#link = link;
    this.#memory = memory;
  }

  /** Takes vector 0 and starts the controller. */
  async start(): Promise<void> {
    await this.#link.connect();
    await this.restart();
  }

  /** Controller reset: queues are empty afterwards. */
  async restart(): Promise<void> {
    await this.#link.write(CC, 0);
    await this.#isReady(0);
    this.#write(SUBMISSIONS, new Uint8Array(NVME_MEMORY));
    [this.#tail, this.#head, this.#phase] = [0, 0, 1];
    await this.#link.write(AQA, ((ENTRIES - 1) << 16) | (ENTRIES - 1));
    await this.#link.write(ASQ, this.#memory.address + SUBMISSIONS);
    await this.#link.write(ASQ + 4, 0);
    await this.#link.write(ACQ, this.#memory.address + COMPLETIONS);
    await this.#link.write(ACQ + 4, 0);
    await this.#link.write(CC, ENABLED);
    await this.#isReady(1);
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
    await this.#link.write(SUBMISSION_DOORBELL, this.#tail);
    await this.#link.interrupt();
    this.interrupts++;
    const completion = this.#read(COMPLETIONS + 16 * this.#head, 16);
    const status = new DataView(completion.buffer).getUint16(14, true);
    assert.equal(status & 1, this.#phase, 'the completion is there when its interrupt comes');
    assert.equal(status >> 1, 0, `status of admin command 0x${opcode.toString(16)}`);
    this.#head = (this.#head + 1) % ENTRIES;
    if (this.#head === 0) {
      this.#phase ^= 1;
    }
    await this.#link.write(COMPLETION_DOORBELL, this.#head);
  }

  async #isReady(ready: 0 | 1): Promise<void> {
    const deadline = Date.now() + READY_PATIENCE;
    while (((await this.#link.read(CSTS)) & 1) !== ready) {
      assert.ok(Date.now() < deadline, `CSTS.RDY is not ${ready} within ${READY_PATIENCE} ms`);
      await sleep(5);
    }
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

/** Virtualization Management: actions and resource types. */
const VIRTUALIZATION = 0x1c;
const PRIMARY_ALLOCATION = 1;
const SECONDARY_ASSIGN = 8;
const SECONDARY_ONLINE = 9;
const RESOURCE_TYPES = [0, 1] as const;

/** Has the PF hand its flexible resources to its VFs. */
export async function shareResources(pf: NvmeDriver): Promise<void> {
  for (const type of RESOURCE_TYPES) {
    await pf.command(VIRTUALIZATION, { cdw10: PRIMARY_ALLOCATION | (type << 8) });
  }
  await pf.restart();
}

/** Has the PF bring a VF up. */
export async function bringUp(pf: NvmeDriver, vfIndex: number): Promise<void> {
  const controller = (vfIndex + 1) << 16;
  for (const type of RESOURCE_TYPES) {
    const cdw10 = SECONDARY_ASSIGN | (type << 8) | controller;
    await pf.command(VIRTUALIZATION, { cdw10, cdw11: 2 });
  }
  await pf.command(VIRTUALIZATION, { cdw10: SECONDARY_ONLINE | controller });
}

/** Serial number and model out of an Identify Controller structure. */
export function namesOf(identify: Uint8Array): { serial: string; model: string } {
  const text = (from: number, to: number) =>
    new TextDecoder().decode(identify.subarray(from, to)).trim();
  return { serial: text(4, 24), model: text(24, 64) };
}
