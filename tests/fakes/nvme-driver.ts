// A driver's side of an NVMe controller: guest memory, queues and doorbells, against a function that is opened here.

import { type Faults, NO_FAULTS } from '../../backend/device/faults.ts';
import {
  type DeviceFunction,
  type FunctionWires,
  PF_INDEX,
} from '../../backend/device/physical-device.ts';
import { openRamFunction, type RamHandle } from '../../backend/devices/kit/ram-device.ts';
import { declareNvme, type NvmeOptions } from '../../backend/devices/nvme/device.ts';
import { CONTROLLER, DOORBELLS } from '../../backend/devices/nvme/spec/registers.ts';
import { registerValue } from '../../backend/pci/registers.ts';
import { HEADER } from '../../backend/pci/spec/header.ts';
import type { Clock } from '../../protocol/clock.ts';
import { loadUint, storeUint } from '../../protocol/little-endian.ts';
import { logInto } from '../../protocol/log.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { createMemfd } from '../../protocol/unix/memory.ts';
import { ManualClock } from './manual-clock.ts';

const PAGE = 4096;
export const MEMORY_BYTES = 4 << 20;
const BUS_MASTER = 0x4;
const ADMIN_ENTRIES = 16;

/** Fields of a submission entry; the rest is 0. */
export interface Entry {
  readonly opcode: number;
  readonly namespaceId?: number;
  readonly prp1?: number;
  readonly prp2?: number;
  readonly dwords?: readonly number[];
  /** Bits that are set besides, by dword of the entry, 0 to 15. */
  readonly besides?: Readonly<Record<number, number>>;
}

/** Where a driver keeps a queue pair. */
interface Pair {
  readonly id: number;
  readonly entries: number;
  readonly submissions: number;
  readonly completions: number;
  tail: number;
  head: number;
  phase: number;
}

export interface Answer {
  readonly result: number;
  readonly identifier: number;
  /** Status Code Type and Status Code. */
  readonly status: number;
  readonly doNotRetry: boolean;
}

/** The namespaces, log and clock of a device; its functions are opened by `NvmeDriver`. */
export class NvmeUnderTest {
  readonly clock: ManualClock;
  readonly lines: string[] = [];
  readonly #handle: RamHandle<NvmeOptions>;
  readonly #drivers: NvmeDriver[] = [];
  readonly #faults: Faults;
  /** Syncs of a disk that are not over: called with whether it is well. */
  readonly syncs: ((isOnDisk: boolean) => void)[] = [];
  static #count = 0;

  /** `clock`: time passes in turns by default. */
  constructor(
    more: Partial<NvmeOptions> = {},
    bytes = 1 << 20,
    clock = new ManualClock(),
    faults: Faults = NO_FAULTS,
  ) {
    this.clock = clock;
    this.#faults = faults;
    const totalVfs = 2;
    const options: NvmeOptions = {
      totalVfs,
      vfs: 'online',
      serialNumber: 'TEST',
      uuid: new Uint8Array(16).fill(7),
      namespaces: Array.from({ length: 1 + totalVfs }, (_, index) => ({
        fd: createMemfd(`namespace${index}`, bytes),
        start: 0,
        bytes,
      })),
      ...more,
    };
    this.#handle = { index: PF_INDEX, device: `nvme ${NvmeUnderTest.#count++}`, options };
  }

  open(index = PF_INDEX): NvmeDriver {
    const driver = new NvmeDriver((wires) =>
      openRamFunction(
        { ...this.#handle, index },
        (options) =>
          declareNvme(options, this.#faults, (_index, done) => void this.syncs.push(done)),
        {
          generation: 1,
          wires,
          clock: this.clock as Clock,
          log: logInto((level, message) => this.lines.push(`${level}: ${message}`)),
        },
      ),
    );
    this.#drivers.push(driver);
    return driver;
  }

  close(): void {
    for (const driver of this.#drivers) {
      driver.close();
    }
    for (const { fd } of this.#handle.options.namespaces) {
      closeFd(fd);
    }
  }
}

export class NvmeDriver {
  readonly memory = new Uint8Array(MEMORY_BYTES);
  readonly raised: number[] = [];
  readonly function: DeviceFunction;
  /** Copies between files and guest memory by the kernel, which without it there are none of. */
  moveFile: FunctionWires['moveFile'];
  readonly #pairs = new Map<number, Pair>();
  #nextFree = PAGE;
  #nextIdentifier = 1;
  #isOpen = true;

  constructor(open: (wires: FunctionWires) => DeviceFunction) {
    const isInside = (address: bigint, length: number): boolean =>
      address + BigInt(length) <= BigInt(MEMORY_BYTES);
    this.function = open({
      raise: (_index, vector) => this.raised.push(vector) > 0,
      drive: () => {},
      readMemory: (address, into) => {
        if (!isInside(address, into.length)) {
          return false;
        }
        into.set(this.memory.subarray(Number(address), Number(address) + into.length));
        return true;
      },
      writeMemory: (address, from) => {
        if (!isInside(address, from.length)) {
          return false;
        }
        this.memory.set(from, Number(address));
        return true;
      },
      moveFile: (...copy) => this.moveFile?.(...copy),
    });
    this.function.writeConfig(HEADER.command.offset, 2, BUS_MASTER);
  }

  close(): void {
    if (this.#isOpen) {
      this.#isOpen = false;
      this.function.close();
    }
  }

  /** All of memory is free again: no queue is left. */
  forget(): void {
    this.#nextFree = PAGE;
    this.#pairs.clear();
  }

  /** Pages that nobody has yet. */
  allocate(bytes: number): number {
    const address = this.#nextFree;
    this.#nextFree += Math.ceil(bytes / PAGE) * PAGE;
    return address;
  }

  get(register: keyof typeof CONTROLLER): number {
    const bytes = new Uint8Array(4);
    this.function.readRegion(0, CONTROLLER[register].offset, bytes);
    return loadUint(bytes, 0, 4);
  }

  set(register: keyof typeof CONTROLLER, value: number): void {
    this.write(CONTROLLER[register].offset, value);
  }

  write(offset: number, value: number): void {
    const bytes = new Uint8Array(4);
    storeUint(bytes, 0, 4, value);
    this.function.writeRegion(0, offset, bytes);
  }

  /** Sets the admin queues up and enables the controller; gives CSTS. */
  enable(
    fields: Partial<Record<keyof typeof CONTROLLER.configuration.fields, number>> = {},
  ): number {
    const pair = this.#pair(0, ADMIN_ENTRIES);
    this.set('adminQueueAttributes', ((ADMIN_ENTRIES - 1) << 16) | (ADMIN_ENTRIES - 1));
    this.set('adminSubmissionLow', pair.submissions);
    this.set('adminCompletionLow', pair.completions);
    this.set(
      'configuration',
      registerValue(CONTROLLER.configuration, {
        enable: 1,
        submissionEntrySize: 6,
        completionEntrySize: 4,
        ...fields,
      }),
    );
    return this.get('status');
  }

  /** Creates an I/O queue pair; throws unless it can. */
  createPair(id: number, entries = 8, wait = () => {}): void {
    const pair = this.#pair(id, entries);
    const size = (entries - 1) << 16;
    const answers = [
      this.command(
        0,
        { opcode: 5, prp1: pair.completions, dwords: [size | id, (id << 16) | 3] },
        wait,
      ),
      this.command(
        0,
        { opcode: 1, prp1: pair.submissions, dwords: [size | id, (id << 16) | 1] },
        wait,
      ),
    ];
    if (answers.some(({ status }) => status !== 0)) {
      throw new Error(`queue pair ${id}: ${JSON.stringify(answers)}`);
    }
  }

  admin(entry: Entry): Answer {
    return this.command(0, entry);
  }

  /** Puts a command, rings, and takes its completion; throws where there is none after `wait`. */
  command(queue: number, entry: Entry, wait = () => {}): Answer {
    this.put(queue, entry);
    this.ring(queue);
    wait();
    const [answer] = this.take(queue);
    if (answer === undefined) {
      throw new Error(`no completion at queue ${queue}`);
    }
    return answer;
  }

  /** Puts a command without ringing; gives its identifier. */
  put(queue: number, entry: Entry): number {
    const { opcode, namespaceId = 0, prp1 = 0, prp2 = 0, dwords = [], besides = {} } = entry;
    const pair = this.#pairs.get(queue)!;
    const identifier = this.#nextIdentifier++;
    const view = new DataView(this.memory.buffer, pair.submissions + pair.tail * 64, 64);
    new Uint8Array(view.buffer, view.byteOffset, 64).fill(0);
    view.setUint32(0, opcode | (identifier << 16), true);
    view.setUint32(4, namespaceId, true);
    view.setBigUint64(24, BigInt(prp1), true);
    view.setBigUint64(32, BigInt(prp2), true);
    for (const [index, dword] of dwords.entries()) {
      view.setUint32(40 + 4 * index, dword, true);
    }
    for (const [dword, bits] of Object.entries(besides)) {
      const at = 4 * Number(dword);
      view.setUint32(at, view.getUint32(at, true) | bits, true);
    }
    pair.tail = (pair.tail + 1) % pair.entries;
    return identifier;
  }

  ring(queue: number, tail = this.#pairs.get(queue)!.tail): void {
    this.write(DOORBELLS + queue * 8, tail);
  }

  /** Takes what completed, and says so unless told not to. */
  take(queue: number, { rings = true } = {}): Answer[] {
    const pair = this.#pairs.get(queue)!;
    const answers: Answer[] = [];
    for (;;) {
      const view = new DataView(this.memory.buffer, pair.completions + pair.head * 16, 16);
      const status = view.getUint16(14, true);
      if ((status & 1) !== pair.phase) {
        break;
      }
      answers.push({
        result: view.getUint32(0, true),
        identifier: view.getUint16(12, true),
        status: (status >>> 1) & 0x7ff,
        doNotRetry: (status & 0x8000) !== 0,
      });
      pair.head = (pair.head + 1) % pair.entries;
      pair.phase = pair.head === 0 ? 1 - pair.phase : pair.phase;
    }
    if (rings && answers.length > 0) {
      this.write(DOORBELLS + queue * 8 + 4, pair.head);
    }
    return answers;
  }

  tailOf(queue: number): number {
    return this.#pairs.get(queue)!.tail;
  }

  #pair(id: number, entries: number): Pair {
    const pair = {
      id,
      entries,
      submissions: this.allocate(entries * 64),
      completions: this.allocate(entries * 16),
      tail: 0,
      head: 0,
      phase: 1,
    };
    this.memory.fill(0, pair.completions, pair.completions + entries * 16);
    this.#pairs.set(id, pair);
    return pair;
  }
}
