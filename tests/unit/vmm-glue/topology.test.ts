// Where the devices go in QEMU, argument by argument.
import { describe, expect, it } from 'vitest';
import { UserError } from '../../../protocol/user-error.ts';
import {
  type DevicePlan,
  deviceArguments,
  MOST_MAPPED_VFS,
  messageTimeout,
  VFS_OF_CARRIER_PORT,
} from '../../../vmm-glue/qemu/topology.ts';

const MIB = 2 ** 20;
const PLAN: DevicePlan = {
  index: 0,
  topology: 'root-port',
  socketPath: '/run/s/pf.sock',
  vfSocketsFolder: '/run/s/vfs',
  totalVfs: 2,
  vfBars: [{ index: 0, size: 16384, is64Bit: true, prefetchable: true }],
};

function devices(changes: Partial<DevicePlan>): Record<string, unknown>[] {
  const args = deviceArguments({ ...PLAN, ...changes });
  expect(args.filter((_, at) => at % 2 === 0).every((each) => each === '-device')).toBe(true);
  return args.filter((_, at) => at % 2 === 1).map((each) => JSON.parse(each));
}

describe('behind a root port', () => {
  it('puts the PF at 0.0 and each slot at the function that follows, all multifunction', () => {
    const [port, pf, ...slots] = devices({});
    expect(port).toMatchObject({ driver: 'pcie-root-port', id: 'sriov-port0', bus: 'pcie.0' });
    expect(pf).toEqual({
      driver: 'vfio-user-pci',
      id: 'sriov-pf0',
      bus: 'sriov-port0',
      addr: '0.0',
      multifunction: true,
      socket: { type: 'unix', path: '/run/s/pf.sock' },
      'x-msg-timeout': 10_000,
    });
    expect(slots.map(({ id, addr }) => [id, addr])).toEqual([
      ['sriov-pf0-vf0', '0.1'],
      ['sriov-pf0-vf1', '0.2'],
    ]);
    expect(slots[1]).toMatchObject({ socket: { path: '/run/s/vfs/vf1.sock' } });
  });

  it('reserves room for 64 MiB VF BARs of seven VFs above 4 GiB, with room to align them', () => {
    const vfBars = [{ index: 0, size: 64 * MIB, is64Bit: true, prefetchable: true }];
    expect(devices({ totalVfs: 7, vfBars })[0]).toMatchObject({ 'pref64-reserve': 512 * MIB });
    expect(devices({ totalVfs: 4, vfBars })[0]).toMatchObject({ 'pref64-reserve': 512 * MIB });
  });

  it('counts the PF’s own BARs where they are known', () => {
    const vfBars = [{ index: 0, size: 64 * MIB, is64Bit: true, prefetchable: true }];
    const pfBars = [{ index: 0, size: 128 * MIB, is64Bit: true, prefetchable: true }];
    const [port] = devices({ totalVfs: 7, vfBars, pfBars });
    expect(port).toMatchObject({ 'pref64-reserve': 1024 * MIB });
  });

  it('reserves 32-bit room for BARs that cannot go above 4 GiB', () => {
    const vfBars = [{ index: 0, size: 4 * MIB, is64Bit: true, prefetchable: false }];
    const [port] = devices({ totalVfs: 7, vfBars });
    expect(port).toMatchObject({ 'mem-reserve': 34 * MIB });
    expect(port).not.toHaveProperty('pref64-reserve');
  });

  it('puts the port where it is told to', () => {
    expect(devices({ busAddress: '5' })[0]).toMatchObject({ addr: '5.0' });
    expect(devices({ busAddress: '1c.2' })[0]).toMatchObject({ addr: '1c.2' });
  });

  it('refuses more VFs than there are functions, and names the way out', () => {
    expect(devices({ totalVfs: 255 }).at(-1)).toMatchObject({ addr: '1f.7' });
    expect(() => devices({ totalVfs: 256 })).toThrow(/IDs for 255; use fewer VFs/);
  });

  it('gives each backend ids and a chassis of its own', () => {
    const [port, pf] = devices({ index: 1 });
    expect(port).toMatchObject({ id: 'sriov-port1', chassis: 0x81 });
    expect(pf).toMatchObject({ id: 'sriov-pf1', bus: 'sriov-port1' });
  });
});

describe('on pcie.0', () => {
  it('puts 63 VFs on the functions that follow the PF, eight to a device', () => {
    const all = devices({ topology: 'pcie.0', totalVfs: 63 });
    expect(all).toHaveLength(64);
    expect(all[0]).toMatchObject({ id: 'sriov-pf0', bus: 'pcie.0', addr: '10.0' });
    expect(all[8]).toMatchObject({ id: 'sriov-pf0-vf7', addr: '11.0' });
    expect(all[63]).toMatchObject({ id: 'sriov-pf0-vf62', addr: '17.7', multifunction: true });
  });

  it('begins where it is told to', () => {
    expect(devices({ topology: 'pcie.0', busAddress: '2' })[1]).toMatchObject({ addr: '2.1' });
  });

  it('begins lower where there are more VFs than fit above the usual number', () => {
    expect(devices({ topology: 'pcie.0', totalVfs: 119 })[0]).toMatchObject({ addr: '10.0' });
    expect(devices({ topology: 'pcie.0', totalVfs: 120 })[0]).toMatchObject({ addr: 'f.0' });
    const most = devices({ topology: 'pcie.0', totalVfs: 239 });
    expect([most[0], most.at(-1)]).toMatchObject([{ addr: '1.0' }, { addr: '1e.7' }]);
    expect(() => devices({ topology: 'pcie.0', totalVfs: 240 })).toThrow(/device numbers up to 1e/);
  });

  it('puts a second backend behind the first', () => {
    expect(devices({ topology: 'pcie.0', index: 1, totalVfs: 9 })[0]).toMatchObject({
      addr: '12.0',
    });
  });

  it('refuses a PF that is not function 0, and VFs beyond the last device number', () => {
    expect(() => devices({ topology: 'pcie.0', busAddress: '2.1' })).toThrow(UserError);
    expect(() => devices({ topology: 'pcie.0', busAddress: '18', totalVfs: 63 })).toThrow(
      /device numbers up to 1e/,
    );
  });
});

it.each(['', 'x', '20', '1.8', '0x', '1.1.1'])('refuses the bus address "%s"', (busAddress) => {
  expect(() => devices({ busAddress })).toThrow(/--bus-address=/);
});

it('gives QEMU more patience the more RAM there is to map', () => {
  expect(messageTimeout(undefined)).toBe(10_000);
  expect(messageTimeout(256 * MIB)).toBe(15_000);
  expect(messageTimeout(64 * 1024 * MIB)).toBe(330_000);
});

describe('carriers', () => {
  it('get a root bus of their own, with a port for each 8 VFs, where VFs are to be mapped', () => {
    const all = devices({ totalVfs: 9, topology: 'pcie.0', vfMemory: 'mapped' });
    const [root, ...ports] = all.slice(-3);
    expect(root).toEqual({
      driver: 'pxb-pcie',
      id: 'sriov-carriers0',
      bus: 'pcie.0',
      bus_nr: 0x80,
    });
    expect(ports.map(({ id, bus, slot }) => [id, bus, slot])).toEqual([
      ['sriov-carriers0-port0', 'sriov-carriers0', 0xa0],
      ['sriov-carriers0-port1', 'sriov-carriers0', 0xa1],
    ]);
    expect(devices({ totalVfs: 9, topology: 'pcie.0' })).toEqual(all.slice(0, -3));
  });

  it('have their ports on pcie.0 in a virt, whose guest may find no other root bus', () => {
    const plan = { totalVfs: 9, vfMemory: 'mapped', machine: 'virt' } as const;
    const ports = devices(plan).filter(({ id }) => String(id).startsWith('sriov-carriers'));
    expect(ports.map(({ driver, id, bus }) => [driver, id, bus])).toEqual([
      ['pcie-root-port', 'sriov-carriers0-port0', 'pcie.0'],
      ['pcie-root-port', 'sriov-carriers0-port1', 'pcie.0'],
    ]);
  });

  it('have slot numbers that no other port has, by their low 8 bits, as QEMU tells slots of a chassis apart', () => {
    const ports = [0, 1, 2]
      .flatMap((index) => devices({ index, totalVfs: 255, vfMemory: 'mapped', mappedVfs: 255 }))
      .filter(({ driver }) => driver === 'pcie-root-port');
    const numbers = ports.map(({ slot }) => Number(slot) & 0xff);
    expect(numbers).toHaveLength(3 * (32 + 1));
    expect(new Set(numbers).size).toBe(numbers.length);
  });

  it('get ports for as many VFs as may be mapped, and no more', () => {
    const portsOf = (plan: { totalVfs: number; mappedVfs?: number }): number =>
      devices({ vfMemory: 'mapped', ...plan }).filter(({ bus }) => bus === 'sriov-carriers0')
        .length;
    expect(portsOf({ totalVfs: 200 })).toBe(MOST_MAPPED_VFS / VFS_OF_CARRIER_PORT);
    expect(portsOf({ totalVfs: 200, mappedVfs: 97 })).toBe(13);
    expect(portsOf({ totalVfs: 9, mappedVfs: 97 })).toBe(2);
  });

  it('of another backend have other numbers', () => {
    expect(devices({ index: 1, vfMemory: 'mapped' }).at(-2)).toMatchObject({ bus_nr: 0xa8 });
  });
});
