import { beforeEach, expect, it } from 'vitest';
import type { HostLink } from '../../../../../backend/device/physical-device.ts';
import { PF_INDEX } from '../../../../../backend/device/physical-device.ts';
import { encodeIrqSet, VfioFunction } from '../../../../../backend/devices/vfio/vfio/function.ts';
import type { DeviceCalls } from '../../../../../backend/devices/vfio/vfio/kernel-calls.ts';
import { Errno } from '../../../../../protocol/errno.ts';
import { IrqIndex } from '../../../../../protocol/vfio-user/commands.ts';
import { IrqSetFlag } from '../../../../../protocol/vfio-user/messages.ts';
import { configSpace } from '../../../../fakes/vfio-host.ts';

const CONFIG_AT = 7 * 2 ** 40;
const BAR_AT = 0;
const TRIGGER = IrqSetFlag.dataEventFd | IrqSetFlag.actionTrigger;

let config: Uint8Array;
let accesses: { kind: 'read' | 'write'; offset: number; bytes: number[] }[];
let irqs: Uint8Array[];
let errno: number;
let requested: string[];

const calls: DeviceCalls = {
  ioctl(_fd, _request, argument) {
    irqs.push(argument as Uint8Array);
    return -errno;
  },
  readAt(_fd, into, offset) {
    if (errno !== 0) {
      return -errno;
    }
    if (offset >= CONFIG_AT) {
      into.set(config.subarray(offset - CONFIG_AT).subarray(0, into.length));
    }
    accesses.push({ kind: 'read', offset, bytes: [...into] });
    return into.length;
  },
  writeAt(_fd, from, offset) {
    if (errno !== 0) {
      return -errno;
    }
    if (offset >= CONFIG_AT) {
      config.set(from, offset - CONFIG_AT);
    }
    accesses.push({ kind: 'write', offset, bytes: [...from] });
    return from.length;
  },
};

const link: HostLink = {
  request(name, args, done) {
    requested.push(`${name} ${JSON.stringify(args)}`);
    done(undefined, undefined as never);
  },
};

function functionAt(index: number): VfioFunction {
  return new VfioFunction(
    calls,
    {
      index,
      deviceFd: 9,
      regionOffsets: [0, 1, 2, 3, 4, 5, 6, 7, 8].map((region) => BigInt(region) << 40n),
      shape: {
        config: configSpace(index === PF_INDEX),
        bars: [],
        irqs: [],
        regions: [
          {
            index: 0,
            size: 0x4000,
            readable: true,
            writable: true,
            mappable: [{ offset: 0, size: 0x4000 }],
          },
          { index: 2, size: 0x20, readable: true, writable: true, mappable: [] },
        ],
      },
    },
    link,
  );
}

beforeEach(() => {
  config = configSpace(true);
  accesses = [];
  irqs = [];
  errno = 0;
  requested = [];
});

it('config space is read and written through the device file', () => {
  const pf = functionAt(PF_INDEX);
  expect(pf.readConfig(0, 4)).toBe(0x10c9_8086);
  pf.writeConfig(4, 2, 0x0406);
  expect(accesses.at(-1)).toEqual({ kind: 'write', offset: CONFIG_AT + 4, bytes: [0x06, 0x04] });
});

it('memory space of a VF stays on, whatever its Command is written with', () => {
  functionAt(0).writeConfig(4, 2, 0x0404);
  expect(accesses.at(-1)?.bytes).toEqual([0x06, 0x04]);
  functionAt(0).writeConfig(4, 4, 0xf900_0000);
  expect(accesses.at(-1)?.bytes).toEqual([0x02, 0, 0, 0xf9]);
  functionAt(PF_INDEX).writeConfig(4, 2, 0x0404);
  expect(accesses.at(-1)?.bytes).toEqual([0x04, 0x04]);
});

it('a value above 2^31 comes back unsigned', () => {
  config.fill(0xff, 0x40, 0x44);
  expect(functionAt(PF_INDEX).readConfig(0x40, 4)).toBe(0xffff_ffff);
});

it('while the host is busy the PF answers from memory and keeps writes for later', () => {
  const pf = functionAt(PF_INDEX);
  pf.hostBusy(true);
  accesses.length = 0;
  pf.writeConfig(4, 2, 0x0406);
  pf.writeConfig(0x0c, 1, 0x10);
  expect(pf.readConfig(4, 2)).toBe(0x0406);
  expect(pf.readConfig(0, 2)).toBe(0x8086);
  expect(accesses).toEqual([]);

  pf.hostBusy(false);
  expect(accesses.map(({ kind, offset }) => [kind, offset])).toEqual([
    ['write', CONFIG_AT + 4],
    ['write', CONFIG_AT + 0x0c],
  ]);
  accesses.length = 0;
  pf.readConfig(4, 2);
  expect(accesses).toHaveLength(1);
});

it('what changed on the hardware before the host got busy is seen meanwhile', () => {
  const pf = functionAt(PF_INDEX);
  config[0x06] = 0xb0;
  pf.hostBusy(true);
  expect(pf.readConfig(6, 1)).toBe(0xb0);
});

it('a VF goes on asking the hardware while the host is busy', () => {
  const vf = functionAt(0);
  vf.hostBusy(true);
  vf.readConfig(4, 2);
  expect(accesses).toHaveLength(1);
});

it('a device that has gone reads all-ones, and writes to it are lost', () => {
  const pf = functionAt(PF_INDEX);
  errno = Errno.EIO;
  expect(pf.readConfig(0, 4)).toBe(0xffff_ffff);
  expect(pf.readConfig(0, 2)).toBe(0xffff);
  const bytes = new Uint8Array(4);
  pf.readRegion(0, 0x10, bytes);
  expect([...bytes]).toEqual([0xff, 0xff, 0xff, 0xff]);
  pf.writeConfig(4, 2, 6);
  pf.writeRegion(0, 0x10, bytes);
});

it('a BAR is accessed at its place in the device file', () => {
  const pf = functionAt(PF_INDEX);
  pf.writeRegion(2, 8, Uint8Array.of(1, 2));
  expect(accesses.at(-1)).toEqual({ kind: 'write', offset: 2 * 2 ** 40 + 8, bytes: [1, 2] });
  pf.readRegion(0, 0x100, new Uint8Array(4));
  expect(accesses.at(-1)?.offset).toBe(BAR_AT + 0x100);
});

it('only what may be mapped has a file', () => {
  const pf = functionAt(PF_INDEX);
  expect(pf.regionFile(0)).toEqual({ fd: 9, offset: 0n });
  expect(pf.regionFile(2)).toBeUndefined();
  expect(pf.regionFile(5)).toBeUndefined();
});

it('eventfds that are not given become -1, as VFIO wants them', () => {
  const argument = encodeIrqSet({ index: IrqIndex.msix, start: 1, count: 2, flags: TRIGGER });
  expect([...new Int32Array(argument.buffer)]).toEqual([28, TRIGGER, 2, 1, 2, -1, -1]);
});

it('eventfds and booleans follow the request', () => {
  const withFds = encodeIrqSet({
    index: IrqIndex.msix,
    start: 0,
    count: 2,
    flags: TRIGGER,
    eventFds: [7, -1],
  });
  expect([...new Int32Array(withFds.buffer)].slice(5)).toEqual([7, -1]);
  const flags = IrqSetFlag.dataBool | IrqSetFlag.actionTrigger;
  const withBools = encodeIrqSet({
    index: IrqIndex.msix,
    start: 0,
    count: 2,
    flags,
    bools: [true, false],
  });
  expect([...withBools.subarray(20)]).toEqual([1, 0]);
});

it('disabling an index that is not enabled is no error, anything else is', () => {
  const pf = functionAt(PF_INDEX);
  errno = Errno.EINVAL;
  const flags = IrqSetFlag.dataNone | IrqSetFlag.actionTrigger;
  pf.setIrqs({ index: IrqIndex.msi, start: 0, count: 0, flags });
  expect(() => pf.setIrqs({ index: IrqIndex.msi, start: 0, count: 1, flags })).toThrow(
    /VFIO_DEVICE_SET_IRQS.*EINVAL/,
  );
});

it('the release request stays with this program', () => {
  functionAt(PF_INDEX).setIrqs({
    index: IrqIndex.req,
    start: 0,
    count: 1,
    flags: TRIGGER,
    eventFds: [3],
  });
  expect(irqs).toEqual([]);
});

it('what takes long is asked of the main thread', () => {
  const vf = functionAt(2);
  const done: unknown[] = [];
  vf.reset((error) => done.push(error));
  expect(requested).toEqual(['resetFunction [2]']);
  expect(done).toEqual([undefined]);
});
