import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AdminOpcode, IoOpcode } from '../../../../backend/devices/nvme/spec/commands.ts';
import {
  IDENTIFY_CONTROLLER,
  IDENTIFY_NAMESPACE,
  PRIMARY_CAPABILITIES,
} from '../../../../backend/devices/nvme/spec/identify.ts';
import { ERROR_ENTRY, SMART } from '../../../../backend/devices/nvme/spec/logs.ts';
import { DOORBELLS } from '../../../../backend/devices/nvme/spec/registers.ts';
import { Status } from '../../../../backend/devices/nvme/spec/status.ts';
import { HEADER } from '../../../../backend/pci/spec/header.ts';
import { ManualClock } from '../../../fakes/manual-clock.ts';
import {
  type Entry,
  MEMORY_BYTES,
  type NvmeDriver,
  NvmeUnderTest,
} from '../../../fakes/nvme-driver.ts';

const READY = 1;
const FATAL = 2;
const SHUTDOWN_COMPLETE = 8;
const BUS_MASTER = 4;
const BLOCKS = (1 << 20) / 512;

let device: NvmeUnderTest;
let driver: NvmeDriver;

beforeEach(() => {
  device = new NvmeUnderTest();
  driver = device.open();
});
afterEach(() => {
  device.close();
  expect(device.lines.filter((line) => line.startsWith('error'))).toEqual([]);
});

/** Time goes on with every look at it: each step of work takes a millisecond. */
class BusyClock extends ManualClock {
  override now(): number {
    this.elapse(1);
    return super.now();
  }
}

function io(opcode: number, start: number, blocks: number, prp1: number, prp2 = 0) {
  return { opcode, namespaceId: 1, prp1, prp2, dwords: [start, 0, blocks - 1] };
}

function identified(cns: number, namespaceId = 0): Uint8Array {
  const to = driver.allocate(4096);
  const { status } = driver.admin({
    opcode: AdminOpcode.identify,
    namespaceId,
    prp1: to,
    dwords: [cns],
  });
  expect(status).toBe(Status.success);
  return driver.memory.slice(to, to + 4096);
}

describe('enabling', () => {
  it('makes the controller ready, and a reset takes everything back', () => {
    expect(driver.enable()).toBe(READY);
    driver.createPair(1);
    driver.set('configuration', 0);
    expect(driver.get('status')).toBe(0);
    expect(driver.enable()).toBe(READY);
    driver.createPair(1);
  });

  it.each([
    ['pages that are too large', { pageSize: 5 }],
    ['another command set', { commandSet: 1 }],
    ['another arbitration', { arbitration: 1 }],
  ])('with %s ends in Controller Fatal Status, until it is reset', (_, fields) => {
    expect(driver.enable(fields)).toBe(FATAL);
    driver.set('configuration', 0);
    expect(driver.get('status')).toBe(0);
    expect(driver.enable()).toBe(READY);
  });

  it('with an admin queue of one entry, or one that cannot be read, ends there too', () => {
    driver.set('adminQueueAttributes', 0);
    driver.set('configuration', 1);
    expect(driver.get('status')).toBe(FATAL);
    driver.set('configuration', 0);
    driver.enable();
    driver.set('configuration', 0);
    driver.set('adminSubmissionLow', MEMORY_BYTES);
    driver.set('configuration', 1);
    driver.ring(0, 1);
    expect(driver.get('status') & FATAL).toBe(FATAL);
    expect(device.lines).toContainEqual(expect.stringContaining('queue 0 cannot be read'));
  });

  it('is undone by a reset, which takes no interrupt mask along and leaves the admin queues where they are', () => {
    driver.enable();
    driver.set('interruptMaskSet', 0b101);
    expect(driver.get('interruptMaskSet')).toBe(0b101);
    const queues = (
      ['adminQueueAttributes', 'adminSubmissionLow', 'adminCompletionLow'] as const
    ).map((register) => [register, driver.get(register)] as const);
    driver.set('configuration', 0);
    expect([driver.get('interruptMaskSet'), driver.get('interruptMaskClear')]).toEqual([0, 0]);
    expect(queues.map(([register]) => [register, driver.get(register)])).toEqual(queues);
  });

  it('is undone by a shutdown, as far as the host sees, and by a function level reset', () => {
    driver.enable();
    driver.set('configuration', 0x46_4001);
    expect(driver.get('status')).toBe(READY | SHUTDOWN_COMPLETE);
    driver.function.reset(() => {});
    expect([driver.get('status'), driver.get('configuration')]).toEqual([0, 0]);
  });
});

describe('Identify', () => {
  beforeEach(() => void driver.enable());

  it('tells what the controller is', () => {
    expect(IDENTIFY_CONTROLLER.decode(identified(1))).toMatchObject({
      serialNumber: 'TEST',
      controllerId: 0,
      multiPath: 2,
      volatileWriteCache: 7,
      submissionEntrySizes: 0x66,
      completionEntrySizes: 0x44,
      namespaces: 1,
      subsystemName: 'nqn.2014-08.org.nvmexpress:uuid:07070707-0707-0707-0707-070707070707',
    });
  });

  it('tells each function’s own, with namespaces that nobody takes for one', () => {
    const vf = device.open(1);
    vf.enable();
    const to = vf.allocate(4096);
    vf.admin({ opcode: AdminOpcode.identify, prp1: to, dwords: [1] });
    const own = IDENTIFY_CONTROLLER.decode(vf.memory, to);
    expect([own.controllerId, own.multiPath]).toEqual([2, 6]);
    vf.admin({ opcode: AdminOpcode.identify, namespaceId: 1, prp1: to, dwords: [0] });
    const [ours, theirs] = [identified(0, 1), vf.memory.slice(to, to + 4096)].map((bytes) =>
      IDENTIFY_NAMESPACE.decode(bytes),
    );
    expect(ours!.globallyUniqueId).not.toEqual(theirs!.globallyUniqueId);
    expect(ours!.size).toBe(BigInt(BLOCKS));
  });

  it('lists namespaces, controllers and secondary controllers', () => {
    device.open(0);
    expect([...identified(2).subarray(0, 8)]).toEqual([1, 0, 0, 0, 0, 0, 0, 0]);
    expect([...identified(0x13).subarray(0, 8)]).toEqual([2, 0, 0, 0, 1, 0, 0, 0]);
    const secondaries = identified(0x15);
    expect([...secondaries.subarray(0, 1), ...secondaries.subarray(32, 46)]).toEqual([
      2, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 9, 0, 9, 0,
    ]);
    expect([...secondaries.subarray(64, 69)]).toEqual([2, 0, 0, 0, 0]);
  });

  it.each([
    [0, 0, Status.invalidNamespace],
    [0, 2, Status.invalidNamespace],
    [2, 0xffff_fffe, Status.invalidNamespace],
    [3, 2, Status.invalidNamespace],
    [0x10, 1, Status.invalidField],
  ])('CNS %i of namespace %i is refused', (cns, namespaceId, status) => {
    const entry = { opcode: AdminOpcode.identify, namespaceId, prp1: 4096, dwords: [cns] };
    expect(driver.admin(entry)).toMatchObject({ status, doNotRetry: true });
  });

  it('to where no memory is fails, and may be tried again', () => {
    const entry = { opcode: AdminOpcode.identify, prp1: MEMORY_BYTES, dwords: [1] };
    expect(driver.admin(entry)).toMatchObject({
      status: Status.dataTransferError,
      doNotRetry: false,
    });
  });
});

describe('queues', () => {
  beforeEach(() => void driver.enable());

  const size = (entries: number, id: number) => ((entries - 1) << 16) | id;
  const { createCompletionQueue, createSubmissionQueue } = AdminOpcode;
  const { deleteCompletionQueue, deleteSubmissionQueue } = AdminOpcode;

  it.each<[string, number, number, number, number, Status]>([
    ['identifier 0', createCompletionQueue, 4096, size(8, 0), 1, Status.invalidQueueIdentifier],
    [
      'too high an identifier',
      createCompletionQueue,
      4096,
      size(8, 17),
      1,
      Status.invalidQueueIdentifier,
    ],
    [
      'one that there is',
      createCompletionQueue,
      4096,
      size(8, 1),
      1,
      Status.invalidQueueIdentifier,
    ],
    ['one entry', createCompletionQueue, 4096, size(1, 2), 1, Status.invalidQueueSize],
    ['65,536 entries', createCompletionQueue, 4096, 0xffff_0002, 1, Status.invalidQueueSize],
    ['scattered pages', createCompletionQueue, 4096, size(8, 2), 0, Status.invalidField],
    ['half a page', createCompletionQueue, 2048, size(8, 2), 1, Status.invalidPrpOffset],
    [
      'no such vector',
      createCompletionQueue,
      4096,
      size(8, 2),
      0x20_0001,
      Status.invalidInterruptVector,
    ],
    [
      'no completions',
      createSubmissionQueue,
      4096,
      size(8, 2),
      0x3_0001,
      Status.completionQueueInvalid,
    ],
    [
      'the admin completions',
      createSubmissionQueue,
      4096,
      size(8, 2),
      1,
      Status.invalidQueueIdentifier,
    ],
    ['one submission', createSubmissionQueue, 4096, size(1, 2), 0x1_0001, Status.invalidQueueSize],
  ])('with %s are refused', (_, opcode, prp1, dword10, dword11, status) => {
    driver.createPair(1);
    expect(driver.admin({ opcode, prp1, dwords: [dword10, dword11] }).status).toBe(status);
  });

  it('are deleted submissions first', () => {
    driver.createPair(1);
    const remove = (opcode: number, id: number) => driver.admin({ opcode, dwords: [id] }).status;
    expect(remove(deleteCompletionQueue, 1)).toBe(Status.invalidQueueDeletion);
    expect(remove(deleteSubmissionQueue, 1)).toBe(Status.success);
    expect(remove(deleteSubmissionQueue, 1)).toBe(Status.invalidQueueIdentifier);
    expect(remove(deleteCompletionQueue, 1)).toBe(Status.success);
    expect(remove(deleteCompletionQueue, 0)).toBe(Status.invalidQueueIdentifier);
  });

  it('are as many as is told, which cannot be changed once there are any', () => {
    const set = { opcode: AdminOpcode.setFeatures, dwords: [7, 0x00ff_00ff] };
    expect(driver.admin(set)).toMatchObject({ status: 0, result: 0x000f_000f });
    driver.createPair(1);
    expect(driver.admin(set).status).toBe(Status.commandSequenceError);
  });

  it('that are full of completions hold back what follows, and lose nothing', () => {
    driver.createPair(1, 4);
    const identifiers: number[] = [];
    const answers: number[] = [];
    for (let round = 0; round < 8; round++) {
      identifiers.push(
        ...[1, 2, 3].map(() => driver.put(1, { opcode: IoOpcode.flush, namespaceId: 1 })),
      );
      driver.ring(1);
      answers.push(...driver.take(1, { rings: false }).map(({ identifier }) => identifier));
      driver.ring(1);
      expect(driver.take(1, { rings: false })).toEqual([]);
      driver.write(DOORBELLS + 12, (3 * (round + 1)) % 4);
    }
    expect(answers).toEqual(identifiers);
  });

  it('raise their vectors, each once for what came at once', () => {
    driver.createPair(1);
    driver.createPair(3);
    driver.raised.length = 0;
    driver.put(3, { opcode: IoOpcode.flush, namespaceId: 1 });
    driver.put(3, { opcode: IoOpcode.flush, namespaceId: 1 });
    driver.ring(3);
    expect(driver.raised).toEqual([3]);
  });
});

describe('blocks', () => {
  let data: number;

  beforeEach(() => {
    driver.enable();
    driver.createPair(1);
    data = driver.allocate(64 * 1024);
    driver.memory.fill(0xab, data, data + 1024);
  });

  it('are read as they were written, and compared', () => {
    expect(driver.command(1, io(IoOpcode.write, 5, 2, data)).status).toBe(0);
    const to = driver.allocate(1024);
    expect(driver.command(1, io(IoOpcode.read, 6, 1, to)).status).toBe(0);
    expect(driver.memory[to + 511]).toBe(0xab);
    expect(driver.memory[to + 512]).toBe(0);
    expect(driver.command(1, io(IoOpcode.compare, 5, 2, data)).status).toBe(0);
    driver.memory[data + 1023] = 0;
    expect(driver.command(1, io(IoOpcode.compare, 5, 2, data)).status).toBe(Status.compareFailure);
  });

  it.each(['writeZeroes', 'datasetManagement'] as const)('read zeros after %s', (name) => {
    driver.command(1, io(IoOpcode.write, 0, 2, data));
    const ranges = driver.allocate(16);
    new DataView(driver.memory.buffer).setUint32(ranges + 4, 1, true);
    const entry =
      name === 'writeZeroes'
        ? io(IoOpcode.writeZeroes, 0, 1, 0)
        : { opcode: IoOpcode.datasetManagement, namespaceId: 1, prp1: ranges, dwords: [0, 4] };
    expect(driver.command(1, entry).status).toBe(0);
    driver.command(1, io(IoOpcode.read, 0, 2, data));
    expect([driver.memory[data + 511], driver.memory[data + 512]]).toEqual([0, 0xab]);
  });

  it.each<[string, Parameters<NvmeDriver['command']>[1], Status]>([
    ['beyond the end', io(IoOpcode.read, BLOCKS - 1, 2, 8192), Status.lbaOutOfRange],
    [
      'whose number wraps',
      { ...io(IoOpcode.read, 0, 1, 8192), dwords: [0xffff_ffff, 0xffff_ffff, 0] },
      Status.lbaOutOfRange,
    ],
    [
      'of another namespace',
      { ...io(IoOpcode.read, 0, 1, 8192), namespaceId: 2 },
      Status.invalidNamespace,
    ],
    [
      'of all namespaces',
      { ...io(IoOpcode.write, 0, 1, 8192), namespaceId: 0xffff_ffff },
      Status.invalidNamespace,
    ],
    ['more than MDTS allows', io(IoOpcode.read, 0, 257, 8192), Status.invalidField],
    ['to no memory', io(IoOpcode.read, 0, 1, MEMORY_BYTES), Status.dataTransferError],
    [
      'across the end of memory',
      io(IoOpcode.read, 0, 2, MEMORY_BYTES - 512, MEMORY_BYTES),
      Status.dataTransferError,
    ],
    ['at an odd address', io(IoOpcode.read, 0, 1, 8193), Status.invalidPrpOffset],
    ['by an unknown opcode', io(0x7f, 0, 1, 8192), Status.invalidOpcode],
  ])('%s are refused', (_, entry, status) => {
    expect(driver.command(1, entry).status).toBe(status);
  });

  it('flush of one namespace or of all is done, of another not', () => {
    const flush = (namespaceId: number) =>
      driver.command(1, { opcode: IoOpcode.flush, namespaceId }).status;
    expect([flush(1), flush(0xffff_ffff), flush(2)]).toEqual([0, 0, Status.invalidNamespace]);
  });

  it('are counted by SMART, and failures listed in the error log', () => {
    driver.command(1, io(IoOpcode.write, 0, 2, data));
    driver.command(1, io(IoOpcode.read, BLOCKS, 1, data));
    driver.command(1, io(IoOpcode.compare, 0, 2, data));
    const to = driver.allocate(4096);
    driver.admin({ opcode: AdminOpcode.getLogPage, prp1: to, dwords: [(127 << 16) | 2] });
    expect(SMART.decode(driver.memory, to)).toMatchObject({
      writeCommands: 1n,
      dataUnitsWritten: 1n,
      readCommands: 1n,
      dataUnitsRead: 1n,
      errorLogEntries: 1n,
    });
    driver.admin({ opcode: AdminOpcode.getLogPage, prp1: to, dwords: [(15 << 16) | 1] });
    const doNotRetry = 1 << 14;
    expect(ERROR_ENTRY.decode(driver.memory, to)).toMatchObject({
      submissionQueue: 1,
      status: (Status.lbaOutOfRange | doNotRetry) << 1,
      firstBlock: BigInt(BLOCKS),
      namespaceId: 1,
    });
  });

  it('have a first block in the error log, and others have none', () => {
    driver.command(1, { opcode: IoOpcode.datasetManagement, namespaceId: 2, dwords: [7, 4] });
    driver.admin({ opcode: AdminOpcode.identify, dwords: [6] });
    const to = driver.allocate(4096);
    driver.admin({ opcode: AdminOpcode.getLogPage, prp1: to, dwords: [(31 << 16) | 1] });
    const entries = [to, to + ERROR_ENTRY.size].map((at) => ERROR_ENTRY.decode(driver.memory, at));
    expect(entries).toMatchObject([
      { submissionQueue: 0, firstBlock: 0n },
      { submissionQueue: 1, firstBlock: 0n, namespaceId: 2 },
    ]);
  });
});

describe('log pages', () => {
  const EFFECTS = 5;

  function effectsOf(from: NvmeDriver): Uint8Array {
    const to = from.allocate(4096);
    from.admin({
      opcode: AdminOpcode.getLogPage,
      prp1: to,
      dwords: [(1023 << 16) | EFFECTS],
    });
    return from.memory.slice(to, to + 4096);
  }

  it('are the controller’s, and no namespace’s', () => {
    driver.enable();
    for (const [namespaceId, status] of [
      [0, Status.success],
      [0xffff_ffff, Status.success],
      [1, Status.invalidField],
      [2, Status.invalidField],
    ] as const) {
      const asked = { opcode: AdminOpcode.getLogPage, namespaceId, prp1: 4096, dwords: [2] };
      expect([namespaceId, driver.admin(asked).status]).toEqual([namespaceId, status]);
    }
  });

  it('say that Virtualization Management is the primary controller’s alone', () => {
    const vf = device.open(0);
    for (const each of [driver, vf]) {
      each.enable();
    }
    const at = 4 * AdminOpcode.virtualizationManagement;
    expect([effectsOf(driver)[at], effectsOf(vf)[at]]).toEqual([1, 0]);
    expect(effectsOf(vf)[4 * AdminOpcode.identify]).toBe(1);
  });
});

describe('what takes long', () => {
  const BUSY_BLOCKS = 65_536;

  beforeEach(() => {
    device.close();
    device = new NvmeUnderTest({}, BUSY_BLOCKS * 512, new BusyClock());
    driver = device.open();
    driver.enable();
  });

  /** Lets so many turns pass. */
  function turns(count: number): void {
    for (let turn = 0; turn < count; turn++) {
      device.clock.now();
    }
  }

  function createPair(): void {
    driver.createPair(1, 8, () => turns(9));
  }

  it('is done in steps, between which others are served', () => {
    createPair();
    const zeroes = driver.put(1, io(IoOpcode.writeZeroes, 0, BUSY_BLOCKS, 0));
    const flush = driver.put(1, { opcode: IoOpcode.flush, namespaceId: 1 });
    driver.ring(1);
    turns(6);
    expect(driver.take(1).map(({ identifier }) => identifier)).toEqual([flush]);
    turns(99);
    expect(driver.take(1)).toMatchObject([{ identifier: zeroes, status: 0 }]);
  });

  it('as many short commands do: of those that came at once one is done where one takes all the time', () => {
    createPair();
    const flushes = [1, 2, 3].map(() => driver.put(1, { opcode: IoOpcode.flush, namespaceId: 1 }));
    driver.ring(1);
    expect(driver.take(1).map(({ identifier }) => identifier)).toEqual(flushes.slice(0, 1));
    turns(99);
    expect(driver.take(1).map(({ identifier }) => identifier)).toEqual(flushes.slice(1));
  });

  /** As much as one command moves, from or to pages from `data` on; `lastPage`: another one in the end. */
  function largest(opcode: number, data: number, lastPage?: number): Entry {
    const [pages, list] = [32, driver.allocate(4096)];
    const view = new DataView(driver.memory.buffer);
    for (let page = 1; page < pages; page++) {
      const address = page === pages - 1 ? (lastPage ?? data + page * 4096) : data + page * 4096;
      view.setBigUint64(list + (page - 1) * 8, BigInt(address), true);
    }
    return { ...io(opcode, 0, pages * 8, data), prp2: list };
  }

  it('as a large transfer does: it is moved in pieces, and arrives as it was', () => {
    createPair();
    const [from, to] = [driver.allocate(128 << 10), driver.allocate(128 << 10)];
    for (let at = 0; at < 128 << 10; at++) {
      driver.memory[from + at] = at % 251;
    }
    const written = driver.put(1, largest(IoOpcode.write, from));
    const flush = driver.put(1, { opcode: IoOpcode.flush, namespaceId: 1 });
    driver.ring(1);
    turns(6);
    expect(driver.take(1).map(({ identifier }) => identifier)).toEqual([flush]);
    turns(99);
    expect(driver.take(1)).toMatchObject([{ identifier: written, status: 0 }]);
    expect(driver.command(1, largest(IoOpcode.read, to), () => turns(99)).status).toBe(0);
    const sent = driver.memory.subarray(from, from + (128 << 10));
    expect(Buffer.compare(sent, driver.memory.subarray(to, to + (128 << 10)))).toBe(0);
    expect(driver.command(1, largest(IoOpcode.compare, to), () => turns(99)).status).toBe(0);
  });

  it('a large transfer whose last page is nowhere fails', () => {
    createPair();
    const entry = largest(IoOpcode.read, driver.allocate(128 << 10), MEMORY_BYTES);
    const { status } = driver.command(1, entry, () => turns(99));
    expect(status).toBe(Status.dataTransferError);
  });

  it('can be aborted, ends with its queue, and is forgotten at a reset', () => {
    createPair();
    const aborted = driver.put(1, io(IoOpcode.writeZeroes, 0, BUSY_BLOCKS, 0));
    driver.ring(1);
    turns(3);
    driver.put(0, { opcode: AdminOpcode.abort, dwords: [1 | (aborted << 16)] });
    driver.ring(0);
    turns(3);
    expect(driver.take(1)).toMatchObject([{ identifier: aborted, status: Status.abortRequested }]);
    const gone = driver.put(1, io(IoOpcode.writeZeroes, 0, BUSY_BLOCKS, 0));
    driver.ring(1);
    turns(3);
    driver.put(0, { opcode: AdminOpcode.deleteSubmissionQueue, dwords: [1] });
    driver.ring(0);
    turns(3);
    expect(driver.take(1)).toMatchObject([
      { identifier: gone, status: Status.abortedByQueueDeletion },
    ]);
    driver.function.reset(() => {});
    turns(3);
    expect(device.clock.pending).toBe(0);
  });
});

describe('events', () => {
  beforeEach(() => void driver.enable());

  const request = { opcode: AdminOpcode.asynchronousEventRequest };

  it('are told when a doorbell makes no sense, and again once the log was read', () => {
    const first = driver.put(0, request);
    driver.put(0, request);
    driver.ring(0);
    driver.write(DOORBELLS + 8 * 9, 1);
    driver.write(DOORBELLS + 8 * 9, 1);
    expect(driver.take(0)).toEqual([
      { identifier: first, status: 0, doNotRetry: false, result: 0x01_00_00 },
    ]);
    driver.ring(0, 99);
    expect(driver.take(0)).toEqual([]);
    driver.admin({ opcode: AdminOpcode.getLogPage, prp1: 4096, dwords: [1] });
    driver.ring(0, 99);
    expect(driver.take(0)).toMatchObject([{ result: 0x01_01_00 }]);
  });

  it('are waited for by so many requests, and no more', () => {
    for (let i = 0; i < 5; i++) {
      driver.put(0, request);
    }
    driver.ring(0);
    expect(driver.take(0)).toMatchObject([{ status: Status.asynchronousEventRequestLimit }]);
  });

  it('need not be waited for: a request can be aborted, anything else is too late for it', () => {
    const waiting = driver.put(0, request);
    driver.ring(0);
    const abort = driver.put(0, { opcode: AdminOpcode.abort, dwords: [waiting << 16] });
    driver.ring(0);
    expect(driver.take(0)).toMatchObject([
      { identifier: waiting, status: Status.abortRequested },
      { identifier: abort, status: 0, result: 0 },
    ]);
    expect(driver.admin({ opcode: AdminOpcode.abort, dwords: [99 << 16] }).result).toBe(1);
  });
});

describe('shadow doorbells', () => {
  let [values, events] = [0, 0];

  beforeEach(() => {
    driver.enable();
    [values, events] = [driver.allocate(4096), driver.allocate(4096)];
    const config = { opcode: AdminOpcode.doorbellBufferConfig, prp1: values, prp2: events };
    expect(driver.admin(config).status).toBe(0);
    driver.createPair(1);
  });

  const view = () => new DataView(driver.memory.buffer);
  const flush = { opcode: IoOpcode.flush, namespaceId: 1 };

  it('leave the admin queue to its register', () => {
    expect(driver.admin({ opcode: AdminOpcode.getFeatures, dwords: [1] }).result).toBe(7);
    expect(driver.admin({ opcode: AdminOpcode.getFeatures, dwords: [1] }).result).toBe(7);
  });

  it('are what counts: an older value in the register does not bring back what was done', () => {
    for (let i = 0; i < 3; i++) {
      driver.put(1, flush);
    }
    view().setUint32(values + 8, 3, true);
    driver.ring(1, 1);
    expect(driver.take(1, { rings: false })).toHaveLength(3);
    driver.ring(1, 2);
    expect(driver.take(1, { rings: false })).toEqual([]);
    expect(view().getUint32(events + 8, true)).toBe(3);
  });

  it('are looked at when completions have no room', () => {
    for (let i = 0; i < 7; i++) {
      driver.put(1, flush);
    }
    view().setUint32(values + 8, 7, true);
    driver.ring(1);
    expect(driver.take(1, { rings: false })).toHaveLength(7);
    view().setUint32(values + 12, 7, true);
    driver.put(1, flush);
    view().setUint32(values + 8, 0, true);
    driver.ring(1);
    expect(driver.take(1, { rings: false })).toHaveLength(1);
  });

  it('that are not mapped leave the registers working', () => {
    driver.admin({
      opcode: AdminOpcode.doorbellBufferConfig,
      prp1: MEMORY_BYTES,
      prp2: MEMORY_BYTES,
    });
    expect(driver.command(1, flush).status).toBe(0);
  });
});

it('VFs that come up online need no primary: they go on while it is disabled', () => {
  driver.enable();
  const vf = device.open(0);
  vf.enable();
  vf.createPair(1);
  driver.set('configuration', 0);
  expect(vf.command(1, { opcode: IoOpcode.flush, namespaceId: 1 }).status).toBe(0);
});

describe('VFs that come up offline', () => {
  let vf: NvmeDriver;

  beforeEach(() => {
    device.close();
    device = new NvmeUnderTest({ vfs: 'offline' });
    driver = device.open();
    driver.enable();
    vf = device.open(0);
  });

  /** ACT, RT, CNTLID and NR of Virtualization Management. */
  function manage(action: number, controllerId: number, type = 0, count = 0) {
    return driver.admin({
      opcode: AdminOpcode.virtualizationManagement,
      dwords: [action | (type << 8) | (controllerId << 16), count],
    });
  }

  /** Queues and interrupts of the first, little-endian. */
  const given = () => [...identified(0x15).subarray(32 + 10, 32 + 14)];

  function give() {
    manage(8, 1, 0, 3);
    manage(8, 1, 1, 2);
    expect(manage(9, 1).status).toBe(0);
  }

  function resetFunction() {
    driver.function.reset(() => {});
    driver.function.writeConfig(HEADER.command.offset, 2, BUS_MASTER);
  }

  it('cannot be enabled until the primary gave them resources and took them online', () => {
    expect([vf.get('capabilitiesLow'), vf.enable()]).toEqual([0, FATAL]);
    expect(manage(9, 1).status).toBe(Status.invalidSecondaryControllerState);
    expect(manage(8, 1, 0, 3)).toMatchObject({ status: 0, result: 3 });
    expect(manage(8, 1, 1, 3)).toMatchObject({ status: 0, result: 3 });
    expect(manage(9, 1).status).toBe(0);
    expect(vf.enable()).toBe(READY);
    expect(vf.admin({ opcode: AdminOpcode.getFeatures, dwords: [7] }).result).toBe(0x1_0001);
    const vectored = { opcode: AdminOpcode.createCompletionQueue, prp1: 4096 };
    const third = { ...vectored, dwords: [0x7_0001, (3 << 16) | 3] };
    expect(vf.admin(third).status).toBe(Status.invalidInterruptVector);
    vf.createPair(2);
    expect(vf.admin({ ...vectored, dwords: [0x7_0003, 1] }).status).toBe(
      Status.invalidQueueIdentifier,
    );
    expect(manage(8, 1, 0, 2).status).toBe(Status.invalidSecondaryControllerState);
    expect(manage(7, 1).status).toBe(0);
    expect(vf.get('status')).toBe(FATAL);
  });

  it('lose what they were given when they are taken offline, and when the VF goes', () => {
    give();
    expect(given()).toEqual([3, 0, 2, 0]);
    manage(7, 1);
    expect(given()).toEqual([0, 0, 0, 0]);
    expect(manage(9, 1).status).toBe(Status.invalidSecondaryControllerState);
    give();
    vf.close();
    expect(given()).toEqual([0, 0, 0, 0]);
  });

  it.each([
    ['disabled', () => driver.set('configuration', 0)],
    ['reset with its function', () => resetFunction()],
  ])('are offline again, with nothing, once the primary was %s', (_, disable) => {
    give();
    expect(vf.enable()).toBe(READY);
    disable();
    expect([vf.get('capabilitiesLow'), vf.get('status')]).toEqual([0, FATAL]);
    driver.enable();
    expect(given()).toEqual([0, 0, 0, 0]);
    expect(manage(9, 1).status).toBe(Status.invalidSecondaryControllerState);
    give();
    expect(vf.enable()).toBe(READY);
  });

  it.each([
    [8, 3, 0, 1, Status.invalidControllerIdentifier],
    [8, 1, 2, 1, Status.invalidResourceIdentifier],
    [8, 1, 0, 10, Status.invalidResourceCount],
    [1, 1, 0, 1, Status.invalidControllerIdentifier],
    [1, 0, 0, 10, Status.invalidResourceCount],
    [1, 0, 2, 1, Status.invalidResourceIdentifier],
    [3, 1, 0, 0, Status.invalidField],
    [9, 2, 0, 0, Status.invalidSecondaryControllerState],
  ])(
    'action %i on controller %i, type %i, %i of them, is refused',
    (action, id, type, count, status) => {
      expect(manage(action, id, type, count).status).toBe(status);
    },
  );

  it('are dealt out by a primary whose own change with the reset of its function', () => {
    const ofPrimary = () => {
      const capabilities = PRIMARY_CAPABILITIES.decode(identified(0x14));
      const { queuesAllocatedToPrimary, interruptsAllocatedToPrimary } = capabilities;
      const queues = driver.admin({ opcode: AdminOpcode.getFeatures, dwords: [7] }).result;
      return [queuesAllocatedToPrimary, interruptsAllocatedToPrimary, queues];
    };
    expect(ofPrimary()).toEqual([9, 9, 0xf_000f]);
    expect(manage(1, 0, 0, 2)).toMatchObject({ status: 0, result: 2 });
    expect(manage(1, 0, 1, 0)).toMatchObject({ status: 0, result: 0 });
    driver.set('configuration', 0);
    driver.enable();
    expect(ofPrimary()).toEqual([9, 9, 0xf_000f]);
    resetFunction();
    driver.enable();
    expect(ofPrimary()).toEqual([2, 0, 0x8_0008]);
    const vectored = { opcode: AdminOpcode.createCompletionQueue, prp1: 4096 };
    const withVector = (vector: number) =>
      driver.admin({ ...vectored, dwords: [0x7_0001, (vector << 16) | 3] }).status;
    expect([withVector(8), withVector(7)]).toEqual([Status.invalidInterruptVector, 0]);
  });

  it('know nothing of it themselves', () => {
    manage(8, 1, 0, 2);
    manage(8, 1, 1, 1);
    manage(9, 1);
    vf.enable();
    expect(vf.admin({ opcode: AdminOpcode.virtualizationManagement }).status).toBe(
      Status.invalidOpcode,
    );
  });
});

describe('data that the kernel can copy by itself', () => {
  const blocks = 256;
  let asked: { offset: number; bytes: number; way: string }[];

  /** The first of two pages of a list, behind which 32 pages of data lie apart. */
  function scattered(opcode: number): Entry {
    const list = driver.allocate(4096);
    const pages = Array.from({ length: 32 }, () => driver.allocate(2 * 4096));
    const entries = new BigUint64Array(driver.memory.buffer, list, 31);
    entries.set(pages.slice(1).map(BigInt));
    return io(opcode, 8, blocks, pages[0]!, list);
  }

  function answering(answer: boolean | undefined): void {
    asked = [];
    driver.moveFile = ({ offset }, ranges, way) => {
      asked.push({ offset, bytes: ranges.reduce((sum, { length }) => sum + length, 0), way });
      return answer;
    };
  }

  beforeEach(() => {
    driver.enable();
    driver.createPair(1);
  });

  it.each([
    [IoOpcode.read, 'fromFile'],
    [IoOpcode.write, 'toFile'],
  ])('are moved at once: opcode %i', (opcode, way) => {
    answering(true);
    expect(driver.command(1, scattered(opcode)).status).toBe(0);
    expect(asked).toEqual([{ offset: 8 * 512, bytes: blocks * 512, way }]);
  });

  it('are nowhere where guest memory is not', () => {
    answering(false);
    expect(driver.command(1, scattered(IoOpcode.read)).status).toBe(Status.dataTransferError);
    expect(asked).toHaveLength(1);
  });

  it('go through this process where the kernel cannot', () => {
    answering(undefined);
    const [write, read] = [scattered(IoOpcode.write), scattered(IoOpcode.read)];
    driver.memory.fill(0x77, write.prp1, write.prp1! + 4096);
    const later = (): void => void device.clock.elapse(10);
    expect(driver.command(1, write, later).status).toBe(0);
    expect(driver.command(1, read, later).status).toBe(0);
    expect(driver.memory[read.prp1! + 4095]).toBe(0x77);
    expect(asked.map(({ way }) => way)).toEqual(['toFile', 'fromFile']);
  });
});
