// Finding a backend's functions in QEMU.
import { describe, expect, it } from 'vitest';
import {
  type Asker,
  BusNumbers,
  findPf,
  type QemuFunction,
  socketPathIn,
} from '../../../vmm-glue/qemu/devices.ts';
import { readAnswer } from '../../../vmm-glue/qemu/qmp.ts';

const ROOT = { qomPath: '/machine/q35/pcie.0', bridge: undefined };
const PORT = { qomPath: '/machine/peripheral/rp1/rp1', bridge: { devfn: 8, bus: ROOT } };

const device = (id: string, socketPath?: string): QemuFunction => ({
  qomPath: `/machine/peripheral/${id}`,
  id,
  devfn: 0,
  bus: PORT,
  socketPath,
});

const pciBridge = (
  bus: number,
  slot: number,
  secondary: number,
  devices: object[] = [],
): object => ({
  bus,
  slot,
  function: 0,
  pci_bridge: { bus: { secondary }, devices },
});

const answering = (answer: unknown): Asker => ({
  ask: async (command, reader) => readAnswer(command, answer, reader),
});

describe('the socket of a device', () => {
  it('is read from the names of its memory regions, as QEMU 11.1 escapes them', () => {
    expect(
      socketPathIn([
        { name: 'socket', type: 'SocketAddress' },
        { name: 'bus master[0]', type: 'child<memory-region>' },
        {
          name: 'vfio-user:\\x2ftmp\\x2fa \\x5bb\\x5d\\x2fvf0.sock base BAR 2[0]',
          type: 'child<memory-region>',
        },
      ]),
    ).toBe('/tmp/a [b]/vf0.sock');
  });

  it('is unknown where no region is named after it', () => {
    expect(socketPathIn([{ name: 'vfio-user:x', type: 'string' }])).toBeUndefined();
  });
});

describe('the PF of a backend', () => {
  it('is the device on its socket, whatever its id', () => {
    const functions = [device('a', '/run/1/pf.sock'), device('b', '/run/2/pf.sock')];
    expect(findPf(functions, '/run/2/../2/pf.sock', 'sriov-pf0').id).toBe('b');
  });

  it('is found by its id where QEMU does not tell sockets', () => {
    expect(findPf([device('x'), device('sriov-pf0')], '/run/pf.sock', 'sriov-pf0').id).toBe(
      'sriov-pf0',
    );
  });

  it('is found by the name of its socket when QEMU sees another folder', () => {
    const functions = [device('a', '/in/container/vf0.sock'), device('b', '/in/container/pf.sock')];
    expect(findPf(functions, '/host/pf.sock', 'sriov-pf0').id).toBe('b');
  });

  it('is not a device on another socket, even with the right id', () => {
    expect(() => findPf([device('sriov-pf0', '/run/x')], '/run/pf.sock', 'sriov-pf0')).toThrow();
  });

  it('that QEMU does not have is an error that lists what it has', () => {
    expect(() => findPf([device('a', '/run/x')], '/run/pf.sock', 'sriov-pf0')).toThrow(
      /no vfio-user-pci device on \/run\/pf.sock; it has a \(\/run\/x\).*qemu-args/,
    );
    expect(() => findPf([], '/run/pf.sock', 'sriov-pf0')).toThrow('none at all');
  });
});

describe('bus numbers', () => {
  it('are 0 for the root bus without asking', () => {
    expect(new BusNumbers().of(ROOT)).toBe(0);
  });

  it('are what the guest has given the bridge', async () => {
    const numbers = new BusNumbers();
    await numbers.refresh(answering([{ bus: 0, devices: [pciBridge(0, 1, 3)] }]));
    expect(numbers.of(PORT)).toBe(3);
  });

  it('are found behind a bridge behind a bridge', async () => {
    const numbers = new BusNumbers();
    const inner = pciBridge(2, 4, 5);
    await numbers.refresh(answering([{ bus: 0, devices: [pciBridge(0, 1, 2, [inner])] }]));
    expect(numbers.of({ qomPath: 'x', bridge: { devfn: 4 << 3, bus: PORT } })).toBe(5);
  });

  it('are unknown until the guest has given them', async () => {
    const numbers = new BusNumbers();
    expect(numbers.of(PORT)).toBeUndefined();
    await numbers.refresh(answering([{ bus: 0, devices: [pciBridge(0, 1, 0)] }]));
    expect(numbers.of(PORT)).toBeUndefined();
  });
});
