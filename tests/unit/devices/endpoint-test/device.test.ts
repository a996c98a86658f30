// The test endpoint as Linux's pci_endpoint_test drives it: registers written, a command, an interrupt, Status read.
import { crc32 } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type DeviceFunction, PF_INDEX } from '../../../../backend/device/physical-device.ts';
import { declareEndpointTest } from '../../../../backend/devices/endpoint-test/device.ts';
import { ENDPOINT_TEST, IrqType } from '../../../../backend/devices/endpoint-test/registers.ts';
import { checkDeclaration } from '../../../../backend/devices/kit/check-declaration.ts';
import { describeDevice } from '../../../../backend/devices/kit/describe.ts';
import { openRamFunction } from '../../../../backend/devices/kit/ram-device.ts';
import { registerValue } from '../../../../backend/pci/registers.ts';
import { HEADER } from '../../../../backend/pci/spec/header.ts';
import { loadUint, storeUint } from '../../../../protocol/little-endian.ts';
import { logInto } from '../../../../protocol/log.ts';
import { IrqIndex } from '../../../../protocol/vfio-user/commands.ts';
import { ManualClock } from '../../../fakes/manual-clock.ts';

type Register = keyof typeof ENDPOINT_TEST;
type Command = keyof typeof ENDPOINT_TEST.command.fields;
type Status = keyof typeof ENDPOINT_TEST.status.fields;

const BUS_MASTER = 0x4;
const OUT_OF_REACH = 0x7fff_0000;
const DECLARATION = declareEndpointTest({ totalVfs: 2 });

const memory = new Uint8Array(1 << 20);
let clock: ManualClock;
let interrupts: string[];
/** How long a read of guest memory takes: with some, a transfer is not over in the turn in which it began. */
let readMilliseconds: number;
let endpoint: DeviceFunction;

const isInside = (address: bigint, length: number): boolean =>
  address + BigInt(length) <= BigInt(memory.length);

function open(index: number): DeviceFunction {
  const made = openRamFunction({ index, device: 'endpoint', options: {} }, () => DECLARATION, {
    generation: 1,
    wires: {
      raise: (irq, vector) => interrupts.push(`${irq}:${vector}`) > 0,
      drive: (irq, vector, asserted) => void interrupts.push(`${irq}:${vector} ${asserted}`),
      readMemory: (address, into) => {
        clock.elapse(readMilliseconds);
        const fits = isInside(address, into.length);
        if (fits) {
          into.set(memory.subarray(Number(address), Number(address) + into.length));
        }
        return fits;
      },
      writeMemory: (address, from) => {
        const fits = isInside(address, from.length);
        if (fits) {
          memory.set(from, Number(address));
        }
        return fits;
      },
    },
    clock,
    log: logInto(() => {}),
  });
  made.writeConfig(HEADER.command.offset, 2, BUS_MASTER);
  interrupts = [];
  return made;
}

beforeEach(() => {
  clock = new ManualClock();
  interrupts = [];
  readMilliseconds = 0;
  memory.fill(0);
  endpoint = open(PF_INDEX);
});
afterEach(() => {
  endpoint.close();
});

function write(register: Register, value: number): void {
  const bytes = new Uint8Array(4);
  storeUint(bytes, 0, 4, value);
  endpoint.writeRegion(0, ENDPOINT_TEST[register].offset, bytes);
}

function read(register: Register): number {
  const bytes = new Uint8Array(4);
  endpoint.readRegion(0, ENDPOINT_TEST[register].offset, bytes);
  return loadUint(bytes, 0, 4);
}

function command(field: Command): void {
  write('command', registerValue(ENDPOINT_TEST.command, { [field]: 1 }));
  clock.elapse(1);
}

function status(...fields: readonly Status[]): number {
  const set = Object.fromEntries([...fields, 'irqRaised'].map((field) => [field, 1]));
  return registerValue(ENDPOINT_TEST.status, set);
}

const crc32le = (bytes: Uint8Array): number => ~crc32(bytes) >>> 0;

it("is declared as the kit wants it, with six BARs and IDs of the driver's table", () => {
  expect(checkDeclaration(DECLARATION)).toBeUndefined();
  const { pf, vf, vfDeviceId } = describeDevice(DECLARATION);
  expect([pf.bars, vf.bars].map((bars) => bars.length)).toEqual([6, 6]);
  expect([loadUint(pf.config, 0, 4), vfDeviceId]).toEqual([0xb500_104c, 0xb501]);
});

describe('an interrupt', () => {
  it('is the message that was asked for', () => {
    write('irqType', IrqType.msix);
    write('irqNumber', 3);
    command('raiseMsixIrq');
    expect(interrupts).toEqual([`${IrqIndex.msix}:2`]);
    expect([read('status'), read('command')]).toEqual([status(), 0]);
  });

  it('by INTx is a level, which reading Status ends', () => {
    write('irqType', IrqType.intx);
    command('raiseIntxIrq');
    expect(interrupts).toEqual(['0:0 true']);
    expect(read('status')).toBe(status());
    expect(interrupts).toEqual(['0:0 true', '0:0 false']);
  });

  it('by INTx is nothing that a VF has', () => {
    endpoint.close();
    endpoint = open(0);
    write('irqType', IrqType.intx);
    command('raiseIntxIrq');
    expect([interrupts, read('status')]).toEqual([[], status()]);
    expect(read('capabilities') & registerValue(ENDPOINT_TEST.capabilities, { intx: 1 })).toBe(0);
  });
});

describe('a transfer', () => {
  /** Three steps. */
  const SIZE = 150_001;

  beforeEach(() => {
    write('irqType', IrqType.msi);
    write('irqNumber', 1);
    write('lowerSourceAddress', 0x1000);
    write('lowerDestinationAddress', 0x8_0000);
    write('size', SIZE);
    for (let at = 0; at < SIZE; at++) {
      memory[0x1000 + at] = (at * 7) & 0xff;
    }
  });

  it('reads memory, and finds its checksum right, or wrong', () => {
    write('checksum', crc32le(memory.subarray(0x1000, 0x1000 + SIZE)));
    command('read');
    expect(interrupts).toEqual([`${IrqIndex.msix}:0`]);
    expect(read('status')).toBe(status('readSuccess'));
    write('checksum', 1);
    command('read');
    expect(read('status')).toBe(status('readFail'));
  });

  it('fills memory, all of it and no more, and tells the checksum', () => {
    command('write');
    expect(read('status')).toBe(status('writeSuccess'));
    expect(read('checksum')).toBe(crc32le(memory.subarray(0x8_0000, 0x8_0000 + SIZE)));
    expect(memory[0x8_0000 + SIZE]).toBe(0);
  });

  it('copies memory', () => {
    command('copy');
    expect(read('status')).toBe(status('copySuccess'));
    const copied = Buffer.from(memory.subarray(0x8_0000, 0x8_0000 + SIZE));
    expect(copied.equals(memory.subarray(0x1000, 0x1000 + SIZE))).toBe(true);
  });

  it.each<[Command, Register, Status, Status]>([
    ['read', 'lowerSourceAddress', 'readFail', 'sourceAddressInvalid'],
    ['write', 'lowerDestinationAddress', 'writeFail', 'destinationAddressInvalid'],
    ['copy', 'lowerSourceAddress', 'copyFail', 'sourceAddressInvalid'],
    ['copy', 'lowerDestinationAddress', 'copyFail', 'destinationAddressInvalid'],
  ])('that has to %s by a %s that nothing is at says so', (field, register, failed, invalid) => {
    write(register, OUT_OF_REACH);
    command(field);
    expect(read('status')).toBe(status(failed, invalid));
  });

  it('is over before the command that was written meanwhile is done', () => {
    readMilliseconds = 1;
    write('command', registerValue(ENDPOINT_TEST.command, { copy: 1 }));
    write('command', registerValue(ENDPOINT_TEST.command, { enableDoorbell: 1 }));
    expect([interrupts.length, read('doorbellData')]).toEqual([0, 0]);
    clock.elapse(20);
    expect(interrupts.filter((each) => each === `${IrqIndex.msix}:0`)).toHaveLength(2);
    expect(read('status')).toBe(status('doorbellEnableSuccess'));
  });

  it('is ended by a reset, and what comes after it starts anew', () => {
    readMilliseconds = 1;
    write('command', registerValue(ENDPOINT_TEST.command, { copy: 1 }));
    endpoint.reset(() => {});
    endpoint.writeConfig(HEADER.command.offset, 2, BUS_MASTER);
    expect([read('size'), read('status')]).toEqual([0, 0]);
    command('copy');
    expect(read('status')).toBe(status('copySuccess'));
  });
});

it('has a doorbell that rings where it said, once it is enabled', () => {
  write('irqType', IrqType.msi);
  write('irqNumber', 1);
  command('enableDoorbell');
  expect(read('status')).toBe(status('doorbellEnableSuccess'));
  const [bar, offset, data] = [read('doorbellBar'), read('doorbellOffset'), read('doorbellData')];
  const ring = (value: number): number => {
    write('status', 0);
    const bytes = new Uint8Array(4);
    storeUint(bytes, 0, 4, value);
    endpoint.writeRegion(bar, offset, bytes);
    return read('status');
  };
  expect([ring(data + 1), ring(data)]).toEqual([0, status('doorbellSuccess')]);
  command('disableDoorbell');
  expect(read('status')).toBe(status('doorbellDisableSuccess'));
  expect(ring(data)).toBe(0);
});

describe('a BAR that is mapped in halves', () => {
  const BAR = 2;
  const HALF = 4096;
  /** The first byte of the half, and its last. */
  const edges = (half: number): number[] => {
    const bytes = new Uint8Array(HALF);
    endpoint.readRegion(BAR, half * HALF, bytes);
    return [bytes[0]!, bytes[HALF - 1]!];
  };
  const fill = (half: number, value: number): void => {
    endpoint.writeRegion(BAR, half * HALF, new Uint8Array(HALF).fill(value));
  };
  const ask = (field: Command, bar: number): number => {
    write('size', bar);
    command(field);
    return read('status');
  };

  it('has a signature of its own in each, and keeps what is written to each', () => {
    expect(ask('setUpBarSubrange', BAR)).toBe(status('barSubrangeSetupSuccess'));
    expect([edges(0), edges(1)]).toEqual([
      [0x60, 0x60],
      [0x61, 0x61],
    ]);
    fill(0, 0xb0);
    fill(1, 0xb1);
    expect([edges(0), edges(1)]).toEqual([
      [0xb0, 0xb0],
      [0xb1, 0xb1],
    ]);
  });

  it('has them the other way round when it is mapped as a whole again', () => {
    ask('setUpBarSubrange', BAR);
    fill(0, 0xb0);
    expect(ask('clearBarSubrange', BAR)).toBe(status('barSubrangeClearSuccess'));
    expect([edges(0), edges(1)]).toEqual([
      [0x61, 0x61],
      [0xb0, 0xb0],
    ]);
    expect(ask('clearBarSubrange', BAR)).toBe(status('barSubrangeClearFail'));
  });

  it('is so no more after a reset', () => {
    ask('setUpBarSubrange', BAR);
    endpoint.reset(() => {});
    expect(ask('clearBarSubrange', BAR)).toBe(status('barSubrangeClearFail'));
  });

  it.each([0, 6, 0xffff_ffff])(
    'is not the one with the registers, nor one that is not there: BAR %i',
    (bar) => {
      expect(ask('setUpBarSubrange', bar)).toBe(status('barSubrangeSetupFail'));
    },
  );
});
