import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type DeviceFunction, PF_INDEX } from '../../../../backend/device/physical-device.ts';
import {
  DMA_LIMIT,
  DmaStatus,
  Layout,
  MAGIC,
  Register,
} from '../../../../backend/devices/loopback/registers.ts';
import { HEADER } from '../../../../backend/pci/spec/header.ts';
import { fileSize, readAt } from '../../../../protocol/unix/memory.ts';
import { IrqIndex } from '../../../../protocol/vfio-user/commands.ts';
import { openLoopbackFunction } from '../../../fakes/loopback.ts';
import { openFds } from '../../protocol/unix/open-fds.ts';

const OPTIONS = { totalVfs: 4, vfBarSize: 16384, enableMilliseconds: 0 };
const BAR0 = 0;
const BUS_MASTER = 0x4;
const MEMORY_BYTES = 4 * DMA_LIMIT;
const COMMAND = HEADER.command.offset;

let before: number;
let pf: DeviceFunction;
/** What was raised, as index:vector. */
let raised: string[];
/** Which interrupt indexes somebody has bound. */
let bound: Set<number>;
/** The guest's memory, from address 0. */
let memory: Uint8Array;

beforeEach(() => {
  before = openFds();
  raised = [];
  bound = new Set([IrqIndex.msix]);
  memory = new Uint8Array(MEMORY_BYTES);
  pf = open(PF_INDEX);
});
afterEach(() => {
  pf.close();
  expect(openFds()).toBe(before);
});

function open(index: number, generation = 0): DeviceFunction {
  return openLoopbackFunction({ index, options: OPTIONS }, generation, {
    raise: (irq, vector) => {
      if (bound.has(irq)) {
        raised.push(`${irq}:${vector}`);
      }
      return bound.has(irq);
    },
    drive: () => {},
    readMemory: (address, into) => {
      const at = Number(address);
      if (at + into.length > memory.length) {
        return false;
      }
      into.set(memory.subarray(at, at + into.length));
      return true;
    },
    writeMemory: (address, from) => {
      const at = Number(address);
      if (at + from.length > memory.length) {
        return false;
      }
      memory.set(from, at);
      return true;
    },
  });
}

function bytesAt(offset: number, length: number, of = pf): Uint8Array {
  const into = new Uint8Array(length);
  of.readRegion(BAR0, offset, into);
  return into;
}

function get(register: number, of = pf): number {
  return new DataView(bytesAt(register, 4, of).buffer).getUint32(0, true);
}

function set(register: number, value: number): void {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  pf.writeRegion(BAR0, register, bytes);
}

function copy(source: bigint, destination: bigint, length: number, start = 1): number {
  set(Register.dmaSourceLow, Number(source & 0xffff_ffffn));
  set(Register.dmaSourceHigh, Number(source >> 32n));
  set(Register.dmaDestinationLow, Number(destination & 0xffff_ffffn));
  set(Register.dmaDestinationHigh, Number(destination >> 32n));
  set(Register.dmaLength, length);
  set(Register.dmaVector, 3);
  set(Register.dmaStart, start);
  return get(Register.dmaStatus);
}

describe('the registers', () => {
  it('tell which function it is, and which enable brought it up', () => {
    const vf = open(2, 7);
    expect([get(Register.magic), get(Register.functionNumber), get(Register.generation)]).toEqual([
      MAGIC,
      0,
      0,
    ]);
    expect(get(Register.functionNumber, vf)).toBe(3);
    expect(get(Register.generation, vf)).toBe(7);
    vf.close();
  });

  it('spell VUSR in memory', () => {
    expect(new TextDecoder().decode(bytesAt(Register.magic, 4))).toBe('VUSR');
  });

  it.each(['magic', 'functionNumber', 'generation', 'doorbellCount', 'dmaStatus'] as const)(
    'keep %s from being written',
    (name) => {
      const was = get(Register[name]);
      set(Register[name], 0xdead_beef);
      expect(get(Register[name])).toBe(was);
    },
  );

  it.each(['scratch', 'dmaSourceHigh', 'dmaLength', 'dmaVector'] as const)(
    'keep what is written to %s',
    (name) => {
      set(Register[name], 0xdead_beef);
      expect(get(Register[name])).toBe(0xdead_beef);
    },
  );

  it('of a function are its own', () => {
    const vf = open(0, 1);
    set(Register.scratch, 5);
    expect(get(Register.scratch, vf)).toBe(0);
    vf.close();
  });

  it('take a write byte by byte, or of many registers at once', () => {
    pf.writeRegion(BAR0, Register.scratch + 1, Uint8Array.of(0x22, 0x33));
    expect(get(Register.scratch)).toBe(0x0033_2200);
    pf.writeRegion(
      BAR0,
      Register.dmaSourceLow,
      Uint8Array.from({ length: 16 }, (_, i) => i),
    );
    expect(get(Register.dmaDestinationHigh)).toBe(0x0f0e_0d0c);
  });

  it('read 0 where there is none, and ignore writes there', () => {
    set(0x100, 1);
    expect(get(0x100)).toBe(0);
  });
});

describe('the doorbell', () => {
  it('raises the vector that is written, and counts', () => {
    pf.writeConfig(COMMAND, 2, BUS_MASTER);
    set(Register.doorbell, 2);
    set(Register.doorbell, 0);
    expect(raised).toEqual([`${IrqIndex.msix}:2`, `${IrqIndex.msix}:0`]);
    expect(get(Register.doorbellCount)).toBe(2);
    expect(get(Register.doorbell)).toBe(0);
  });

  it('needs Bus Master Enable, because an interrupt is a write of the device', () => {
    set(Register.doorbell, 1);
    expect(raised).toEqual([]);
    expect(get(Register.doorbellCount)).toBe(0);
  });

  it('falls back to MSI where MSI-X is not bound, and counts nothing where neither is', () => {
    pf.writeConfig(COMMAND, 2, BUS_MASTER);
    bound = new Set([IrqIndex.msi]);
    set(Register.doorbell, 0);
    bound = new Set();
    set(Register.doorbell, 0);
    expect(raised).toEqual([`${IrqIndex.msi}:0`]);
    expect(get(Register.doorbellCount)).toBe(1);
  });

  it('does not ring for a write of part of it', () => {
    pf.writeConfig(COMMAND, 2, BUS_MASTER);
    pf.writeRegion(BAR0, Register.doorbell, Uint8Array.of(1, 0));
    pf.writeRegion(BAR0, Register.doorbell + 1, Uint8Array.of(1, 0, 0, 0));
    expect(raised).toEqual([]);
  });
});

describe('the DMA engine', () => {
  beforeEach(() => {
    pf.writeConfig(COMMAND, 2, BUS_MASTER);
    memory.set([1, 2, 3, 4], 0x1000);
  });

  it('is idle at first', () => {
    expect(get(Register.dmaStatus)).toBe(DmaStatus.idle);
  });

  it('copies, and raises its vector', () => {
    expect(copy(0x1000n, 0x2002n, 4)).toBe(DmaStatus.done);
    expect([...memory.subarray(0x2000, 0x2008)]).toEqual([0, 0, 1, 2, 3, 4, 0, 0]);
    expect(raised).toEqual([`${IrqIndex.msix}:3`]);
  });

  it('copies between ranges that overlap as if at once', () => {
    expect(copy(0x1000n, 0x1001n, 3)).toBe(DmaStatus.done);
    expect([...memory.subarray(0x1000, 0x1005)]).toEqual([1, 1, 2, 3, 0]);
  });

  it.each<[string, bigint, bigint]>([
    ['from', BigInt(MEMORY_BYTES), 0n],
    ['to', 0n, BigInt(MEMORY_BYTES) - 2n],
    ['from above 4 GiB', 1n << 40n, 0n],
  ])('says so where there is no memory to copy %s, and raises its vector', (_, source, to) => {
    expect(copy(source, to, 4)).toBe(DmaStatus.notMapped);
    expect(raised).toEqual([`${IrqIndex.msix}:3`]);
  });

  it.each([0, DMA_LIMIT + 1, 0xffff_ffff])('refuses to copy %i bytes', (length) => {
    expect(copy(0n, 0n, length)).toBe(DmaStatus.badLength);
  });

  it('copies as much as it says it can', () => {
    memory[DMA_LIMIT - 1] = 9;
    expect(copy(0n, BigInt(DMA_LIMIT), DMA_LIMIT)).toBe(DmaStatus.done);
    expect(memory[2 * DMA_LIMIT - 1]).toBe(9);
  });

  it('does nothing without Bus Master Enable, and can raise nothing either', () => {
    pf.writeConfig(COMMAND, 2, 0);
    expect(copy(0x1000n, 0x2000n, 4)).toBe(DmaStatus.busMasterOff);
    expect(memory[0x2000]).toBe(0);
    expect(raised).toEqual([]);
  });

  it('starts with 1 and nothing else', () => {
    expect(copy(0x1000n, 0x2000n, 4, 2)).toBe(DmaStatus.idle);
    expect(memory[0x2000]).toBe(0);
  });
});

describe('the memory pages', () => {
  it('keep what is written, across their end of the registers too', () => {
    const bytes = Uint8Array.from({ length: 8 }, (_, i) => i + 1);
    pf.writeRegion(BAR0, Layout.memory + 3, bytes);
    expect(bytesAt(Layout.memory + 3, 8)).toEqual(bytes);
    pf.writeRegion(BAR0, Layout.msixTable - 4, bytes);
    expect([...bytesAt(Layout.msixTable - 4, 8)]).toEqual([0, 0, 0, 0, 5, 6, 7, 8]);
  });

  it('are the file that a VMM maps, as long as the BAR', () => {
    pf.writeRegion(BAR0, Layout.memory, Uint8Array.of(42));
    const { fd, offset } = pf.regionFile(BAR0)!;
    const byte = new Uint8Array(1);
    expect(readAt(fd, byte, Number(offset) + Layout.memory)).toBe(1);
    expect(byte[0]).toBe(42);
    expect(fileSize(fd)).toBe(64 * 1024);
  });
});

describe('a reset', () => {
  it('clears registers and config space, and leaves memory and identity', () => {
    pf.writeConfig(COMMAND, 2, BUS_MASTER);
    pf.writeConfig(HEADER.bar0.offset, 4, 0xc000_0000);
    set(Register.scratch, 5);
    set(Register.doorbell, 0);
    pf.writeRegion(BAR0, Layout.memory, Uint8Array.of(42));
    let done = false;
    pf.reset(() => {
      done = true;
    });
    expect(done).toBe(true);
    expect(pf.readConfig(COMMAND, 2)).toBe(0);
    expect(pf.readConfig(HEADER.bar0.offset, 4)).toBe(0xc);
    expect([get(Register.scratch), get(Register.doorbellCount), get(Register.magic)]).toEqual([
      0,
      0,
      MAGIC,
    ]);
    expect(bytesAt(Layout.memory, 1)[0]).toBe(42);
  });
});
