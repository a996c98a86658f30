import { readdirSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type DeviceFunction, PF_INDEX } from '../../../../backend/device/physical-device.ts';
import {
  type DeviceDeclaration,
  type FunctionModel,
  type FunctionPort,
  memoryBar,
  msixTable,
  ram,
  registers,
  trapped,
} from '../../../../backend/devices/kit/declaration.ts';
import { describeDevice } from '../../../../backend/devices/kit/describe.ts';
import { openRamFunction } from '../../../../backend/devices/kit/ram-device.ts';
import {
  walkCapabilities,
  walkExtendedCapabilities,
} from '../../../../backend/pci/capability-chain.ts';
import { reg16, reg32 } from '../../../../backend/pci/registers.ts';
import { CapabilityId, ExtendedCapabilityId } from '../../../../backend/pci/spec/capability-ids.ts';
import { HEADER } from '../../../../backend/pci/spec/header.ts';
import { logInto } from '../../../../protocol/log.ts';
import { closeFd } from '../../../../protocol/unix/libc.ts';
import { createMemfd, readAt } from '../../../../protocol/unix/memory.ts';
import { IrqIndex } from '../../../../protocol/vfio-user/commands.ts';
import { IrqInfoFlag } from '../../../../protocol/vfio-user/messages.ts';
import { ManualClock } from '../../../fakes/manual-clock.ts';

const TABLE = { control: reg32(0x0, 'rw'), low: reg16(0x4, 'rw'), high: reg16(0x6, 'rw') };
const BUS_MASTER = 0x4;

const clock = new ManualClock();
let lines: string[] = [];
/** What was driven: index, vector, asserted. */
let pins: [number, number, boolean][] = [];
const open = new Set<DeviceFunction>();
let devices = 0;

afterEach(() => {
  for (const each of open) {
    each.close();
  }
  open.clear();
  lines = [];
  pins = [];
});

function declare(
  create: (port: FunctionPort, shared: string[]) => FunctionModel,
  more: Partial<DeviceDeclaration<string[]>> = {},
): DeviceDeclaration<string[]> {
  const bars = [
    memoryBar(0, 0x4000, [
      registers(0, TABLE, { low: 7 }),
      trapped(0x800, 0x100),
      msixTable(0x1000),
      ram(0x2000, 0x2000),
    ]),
  ];
  return {
    name: 'card',
    vendorId: 0x1234,
    deviceId: 1,
    vfDeviceId: 2,
    classCode: 0x010802,
    totalVfs: 3,
    share: () => [],
    pf: { bars, msixVectors: 2, create },
    vf: { bars, msixVectors: 2, create },
    ...more,
  };
}

function opener(declaration: DeviceDeclaration<string[]>): (index?: number) => DeviceFunction {
  const device = `card ${devices++}`;
  return (index = PF_INDEX) => {
    const made = openRamFunction({ index, device, options: {} }, () => declaration, {
      generation: 0,
      wires: {
        raise: () => true,
        drive: (irq, vector, asserted) => void pins.push([irq, vector, asserted]),
        readMemory: () => true,
        writeMemory: () => true,
      },
      clock,
      log: logInto((level, message) => lines.push(`${level}: ${message}`)),
    });
    open.add(made);
    return made;
  };
}

function read(pf: DeviceFunction, offset: number, length: number): number[] {
  const into = new Uint8Array(length);
  pf.readRegion(0, offset, into);
  return [...into];
}

describe('a function of a declared device', () => {
  it('hears of registers by name, and whether all of one was written at once', () => {
    const writes: string[] = [];
    const pf = opener(
      declare((port) => {
        port.block(TABLE, {
          written: ({ register, before, after, whole }) =>
            writes.push(`${register} ${before} ${after} ${whole}`),
        });
        return {};
      }),
    )();
    pf.writeRegion(0, 0, Uint8Array.of(1, 0, 0, 0, 2, 0, 3, 0));
    pf.writeRegion(0, 4, Uint8Array.of(9));
    expect(writes).toEqual(['control 0 1 true', 'low 7 2 true', 'high 0 3 true', 'low 2 9 false']);
  });

  it('can set a register when it is about to be read', () => {
    const pf = opener(
      declare((port) => {
        const block = port.block(TABLE, { reading: (name) => block.set(name, 5) });
        return {};
      }),
    )();
    expect(read(pf, 4, 2)).toEqual([5, 0]);
  });

  it('answers a trapped part by itself, and zeros where there is no part', () => {
    const seen: string[] = [];
    const pf = opener(
      declare(() => ({
        readTrapped: (bar, offset, into) => void into.fill(bar + 1 + (offset & 0xf)),
        writeTrapped: (_bar, offset, from) => void seen.push(`${offset}: ${[...from]}`),
      })),
    )();
    expect(read(pf, 0x7fe, 4)).toEqual([0, 0, 1, 1]);
    pf.writeRegion(0, 0x8fe, Uint8Array.of(1, 2, 3, 4));
    expect(seen).toEqual(['2302: 1,2']);
  });

  it('keeps memory pages over a reset, and nothing else', () => {
    const pf = opener(declare(() => ({})))();
    pf.writeRegion(0, 0x2000, Uint8Array.of(42));
    pf.writeRegion(0, 4, Uint8Array.of(8, 0));
    pf.writeRegion(0, 0x100c, Uint8Array.of(0));
    pf.reset(() => {});
    expect([read(pf, 0x2000, 1), read(pf, 4, 1), read(pf, 0x100c, 1)]).toEqual([[42], [7], [1]]);
  });

  it('shares what its device shares, until the last one has gone', () => {
    const gone: string[][] = [];
    const make = opener(
      declare(
        (port, shared) => {
          shared.push(`${port.index}`);
          return { close: () => void shared.push(`-${port.index}`) };
        },
        { unshare: (shared) => void gone.push(shared) },
      ),
    );
    const [pf, vf] = [make(), make(1)];
    vf.close();
    expect(gone).toEqual([]);
    pf.close();
    open.clear();
    expect(gone).toEqual([['-1', '1', '-1', '--1']]);
  });

  it('that throws is logged with the access, read as all-ones, and goes on', () => {
    const pf = opener(
      declare(() => ({
        readTrapped: () => {
          throw new Error('no such thing');
        },
        writeTrapped: () => {
          throw new Error('nor this');
        },
      })),
    )();
    expect(read(pf, 0x810, 4)).toEqual([255, 255, 255, 255]);
    pf.writeRegion(0, 0x812, Uint8Array.of(1, 2));
    expect(lines[0]).toMatch(
      /^error: card, pf: read of 4 bytes at 0x810 of BAR 0 failed: Error: no such thing\n {4}at /,
    );
    expect(lines[1]).toContain('write of 2 bytes at 0x812 of BAR 0 failed: Error: nor this');
    expect(read(pf, 4, 1)).toEqual([7]);
  });

  it('that returns a promise is told that nothing waits for it', () => {
    const pf = opener(
      declare((port) => {
        port.block(TABLE, { written: (async () => {}) as () => void });
        return { readTrapped: (async () => {}) as () => void };
      }),
    )();
    expect(read(pf, 0x800, 1)).toEqual([255]);
    pf.writeRegion(0, 0, Uint8Array.of(1, 0, 0, 0));
    expect(lines).toHaveLength(2);
    expect(lines[0]).toContain('the callback returned a promise; callbacks are synchronous');
  });

  it('forgets timers and work when it is reset or goes', () => {
    const seen: string[] = [];
    let port!: FunctionPort;
    const make = opener(
      declare((own) => {
        port = own;
        return {};
      }),
    );
    const pf = make();
    port.after(5, () => seen.push('timer'));
    port.work(() => {
      clock.elapse(1);
      seen.push('step');
      return true;
    });
    expect(seen).toEqual(['step']);
    pf.reset(() => {});
    clock.elapse(10);
    port.after(5, () => seen.push('later'));
    port.after(5, () => seen.push('cancelled')).cancel();
    clock.elapse(5);
    expect(seen).toEqual(['step', 'later']);
    port.after(5, () => seen.push('gone'));
    pf.close();
    open.clear();
    clock.elapse(10);
    expect(seen).toEqual(['step', 'later']);
    expect(clock.pending).toBe(0);
  });

  it('that answers nothing reads 0, not what was read before', () => {
    const pf = opener(declare(() => ({})))();
    const into = new Uint8Array(4).fill(9);
    pf.readRegion(0, 0x800, into);
    expect([...into]).toEqual([0, 0, 0, 0]);
  });

  it.each<[string, unknown, string]>([
    ['a promise', Promise.resolve({}), 'create returned a promise'],
    ['nothing', undefined, 'create must give an object'],
    ['a callback that is none', { reset: 3 }, 'whose reset is no function'],
  ])('is not made of %s', (_, model, message) => {
    const make = opener(declare(() => model as FunctionModel));
    expect(() => make()).toThrow(message);
  });

  it('that cannot be made leaves no timer, and no work', () => {
    let steps = 0;
    const make = opener(
      declare((port) => {
        port.after(5, () => {});
        port.work(() => {
          clock.elapse(1);
          steps++;
          return true;
        });
        throw new Error('no');
      }),
    );
    expect(() => make()).toThrow('no');
    clock.elapse(5);
    expect([clock.pending, steps]).toEqual([0, 1]);
  });

  it('is not made of what is shared by promise, and goes though `unshare` throws', () => {
    const make = opener(declare(() => ({}), { share: (async () => []) as never }));
    expect(() => make()).toThrow('share returned a promise');
    const pf = opener(
      declare(() => ({}), {
        unshare: () => {
          throw Object.create(null);
        },
      }),
    )();
    pf.close();
    open.clear();
    expect(lines).toEqual(['error: card: unshare failed: object']);
  });

  it('leaves a port that leads nowhere: its files may be those of another by now', () => {
    let port!: FunctionPort;
    const make = opener(
      declare((own) => {
        port = own;
        return {};
      }),
    );
    const pf = make();
    pf.writeConfig(HEADER.command.offset, 2, BUS_MASTER);
    const { fd } = pf.regionFile(0)!;
    pf.close();
    open.clear();
    const other = createMemfd('of another', 0x4000);
    expect(other).toBe(fd);
    port.writeRam(0, 0x2000, Uint8Array.of(1));
    const found = new Uint8Array(1);
    readAt(other, found, 0x2000);
    closeFd(other);
    port.after(5, () => {});
    port.work(() => true);
    expect([
      found[0],
      port.raise(0),
      port.busMasterEnable,
      port.memory.read(0n, new Uint8Array(1)),
      clock.pending,
    ]).toEqual([0, false, false, false, 0]);
  });

  it('is refused times that no clock has, and memory that no BAR has, or where the model itself would be asked', () => {
    let port!: FunctionPort;
    opener(
      declare((own) => {
        port = own;
        return {};
      }),
    )();
    for (const time of [Number.NaN, -1, Number.POSITIVE_INFINITY, 2 ** 31]) {
      expect(() => port.after(time, () => {})).toThrow(RangeError);
    }
    for (const offset of [0, 0x1fff, 0x3fff, -1, 8192.5, Number.NaN]) {
      const two = new Uint8Array(2);
      expect(() => port.readRam(0, offset, two)).toThrow('are not all memory pages of BAR 0');
    }
    port.readRam(0, 0x2fff, new Uint8Array(2));
    expect(() => port.writeRam(1, 0, new Uint8Array(1))).toThrow('memory pages of BAR 1');
  });

  it('reaches memory and interrupts while Bus Master Enable is on', () => {
    let port!: FunctionPort;
    const pf = opener(
      declare((own) => {
        port = own;
        return {};
      }),
    )();
    const tried = () => [
      port.busMasterEnable,
      port.raise(0),
      port.memory.read(0n, new Uint8Array(1)),
      port.memory.write(0n, new Uint8Array(1)),
    ];
    expect(tried()).toEqual([false, false, false, false]);
    pf.writeConfig(HEADER.command.offset, 2, BUS_MASTER);
    expect(tried()).toEqual([true, true, true, true]);
  });
});

describe('a port', () => {
  const ways: Record<string, (port: FunctionPort) => FunctionPort> = {
    'taken apart': ({ raise, memory: { read: own, write }, ...port }) => ({
      ...port,
      raise,
      memory: { read: own, write },
    }),
    'behind a proxy': (port) => new Proxy(port, {}),
    'the prototype of another object': (port) => Object.create(port) as FunctionPort,
  };

  it.each(Object.keys(ways))('does what it does, %s', (way) => {
    let port!: FunctionPort;
    let heard = 0;
    const pf = opener(
      declare((own) => {
        port = ways[way]!(own);
        port.block(TABLE, { written: () => heard++ });
        return {};
      }),
    )();
    pf.writeConfig(HEADER.command.offset, 2, BUS_MASTER);
    pf.writeRegion(0, 0, Uint8Array.of(1, 0, 0, 0));
    port.writeRam(0, 0x2000, Uint8Array.of(5));
    port.log('info', 'said');
    port.after(5, () => lines.push('later'));
    port.work(() => lines.push('worked') < 0);
    clock.elapse(5);
    expect([
      heard,
      read(pf, 0x2000, 1),
      [0].map(port.raise),
      port.memory.read(0n, new Uint8Array(1)),
      lines,
    ]).toEqual([1, [5], [true], true, ['info: card, pf: said', 'worked', 'later']]);
  });

  it('tells whether the function reaches the bus, also through another object', () => {
    const ports: FunctionPort[] = [];
    const pf = opener(
      declare((port) => {
        ports.push(port, new Proxy(port, {}), Object.create(port) as FunctionPort);
        return {};
      }),
    )();
    pf.writeConfig(HEADER.command.offset, 2, BUS_MASTER);
    expect(ports.map((port) => port.busMasterEnable)).toEqual([true, true, true]);
  });
});

describe('BARs of which one cannot be made', () => {
  it('leave no file open', () => {
    const bars = [memoryBar(0, 0x1000, [ram(0, 0x1000)]), memoryBar(2, 2 ** 60, [ram(0, 0x1000)])];
    const openFiles = () => readdirSync('/proc/self/fd').length;
    const before = openFiles();
    const create = () => ({});
    expect(opener(declare(create, { pf: { bars, create } }))).toThrow();
    expect(openFiles()).toBe(before);
  });
});

describe('an INTx pin', () => {
  const INTERRUPT_DISABLE = 0x400;
  const INTERRUPT_STATUS = 0x8;
  let port: FunctionPort;
  let pf: DeviceFunction;
  const status = () => pf.readConfig(HEADER.status.offset, 2) & INTERRUPT_STATUS;
  const last = () => pins.at(-1);

  beforeEach(() => {
    const { pf: shape } = declare((own) => {
      port = own;
      return {};
    });
    pf = opener(declare(() => ({}), { pf: { ...shape, interruptPin: 'B' } }))();
  });

  it('is shown in the header, and as one interrupt that masks itself', () => {
    expect(pf.readConfig(HEADER.interruptPin.offset, 1)).toBe(2);
    const { pf: shape, vf } = describeDevice(
      declare(() => ({}), { pf: { bars: [], interruptPin: 'A', create: () => ({}) } }),
    );
    const { eventFd, maskable, autoMasked } = IrqInfoFlag;
    expect(shape.irqs[0]).toEqual({ index: 0, count: 1, flags: eventFd | maskable | autoMasked });
    expect([vf.irqs[0]?.count, vf.config[HEADER.interruptPin.offset]]).toEqual([0, 0]);
  });

  it('is a level, with Interrupt Status beside it, and needs no Bus Master Enable', () => {
    port.driveIntx(true);
    expect([status(), last()]).toEqual([INTERRUPT_STATUS, [IrqIndex.intx, 0, true]]);
    port.driveIntx(false);
    expect([status(), last()]).toEqual([0, [IrqIndex.intx, 0, false]]);
  });

  it('is held back by Interrupt Disable, which Interrupt Status does not care for', () => {
    pf.writeConfig(HEADER.command.offset, 2, INTERRUPT_DISABLE);
    port.driveIntx(true);
    expect([status(), last()]).toEqual([INTERRUPT_STATUS, [IrqIndex.intx, 0, false]]);
    pf.writeConfig(HEADER.command.offset, 2, 0);
    expect(last()).toEqual([IrqIndex.intx, 0, true]);
    pf.writeConfig(HEADER.command.offset + 1, 1, INTERRUPT_DISABLE >> 8);
    expect(last()).toEqual([IrqIndex.intx, 0, false]);
  });

  it('is deasserted by a reset, and when the function goes', () => {
    port.driveIntx(true);
    pf.reset(() => {});
    expect([status(), last()]).toEqual([0, [IrqIndex.intx, 0, false]]);
    port.driveIntx(true);
    pf.close();
    open.clear();
    expect(last()).toEqual([IrqIndex.intx, 0, false]);
  });

  it('that was not declared cannot be driven', () => {
    const { pf: shape } = declare((own) => {
      port = own;
      return {};
    });
    opener(declare(() => ({}), { pf: shape }))();
    expect(() => port.driveIntx(true)).toThrow('the function declares no interruptPin');
  });
});

describe('what a declared device looks like', () => {
  const none = () => ({});
  const { pf, vf } = describeDevice(
    declare(none, {
      serialNumber: 0x1122_3344_5566_7788n,
      pf: {
        bars: declare(none).pf.bars,
        msiVectors: 4,
        msixVectors: 2,
        advancedErrorReporting: true,
        vendorSpecific: Uint8Array.of(0xaa, 0xbb),
        create: none,
      },
    }),
  );
  const at = (config: Uint8Array, offset: number, length: number) =>
    [...config.subarray(offset, offset + length)].reverse();

  it('has each capability that was asked for, and no other', () => {
    const { powerManagement, msi, pciExpress, msix, vendorSpecific } = CapabilityId;
    expect(walkCapabilities(pf.config).map(({ id }) => id)).toEqual([
      powerManagement,
      msi,
      pciExpress,
      msix,
      vendorSpecific,
    ]);
    expect(walkCapabilities(vf.config).map(({ id }) => id)).toEqual([
      powerManagement,
      pciExpress,
      msix,
    ]);
    expect(walkExtendedCapabilities(pf.config).map(({ id }) => id)).toEqual([
      ExtendedCapabilityId.alternativeRoutingId,
      ExtendedCapabilityId.sriov,
      ExtendedCapabilityId.advancedErrorReporting,
      ExtendedCapabilityId.deviceSerialNumber,
    ]);
  });

  it('holds what they were given', () => {
    expect(at(pf.config, 0x08, 4)).toEqual([0x01, 0x08, 0x02, 0x00]);
    expect(at(pf.config, 0xc0, 6)).toEqual([0, 0xbb, 0xaa, 5, 0, CapabilityId.vendorSpecific]);
    expect(at(pf.config, 0x1a4, 8)).toEqual([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
    // MSI: 64-bit, four vectors.
    expect(at(pf.config, 0x52, 2)).toEqual([0x00, 0x84]);
  });

  it('lets a VMM map memory pages alone, and names registers for traces', () => {
    expect(pf.regions[0]!.mappable).toEqual([{ offset: 0x2000, size: 0x2000 }]);
    expect(pf.barTables).toMatchObject([{ region: 0, offset: 0, table: TABLE }]);
  });
});
