// Native hot-plug: what is announced, how a correct VMM goes through it, and what the VFs can do.

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { HotplugCommand } from '../../protocol/hotplug/commands.ts';
import { Command } from '../../protocol/vfio-user/commands.ts';
import { VfioUserClient } from '../../vmm-glue/client/client.ts';
import type { HotplugEvent } from '../../vmm-glue/client/hotplug.ts';
import type { Transport } from '../../vmm-glue/client/transport.ts';
import { UnixTransport } from '../../vmm-glue/client/unix-transport.ts';
import { LoopbackDriver } from '../../vmm-glue/reference-vmm/loopback-driver.ts';
import type { ReferenceVmm } from '../../vmm-glue/reference-vmm/reference-vmm.ts';
import { Backend, expectErrno, expectServing, expectSoon } from './backend.ts';
import {
  AS_GLUE,
  AS_VMM,
  agree,
  dropSocket,
  obey,
  reachPhase,
  SriovRegisters,
  startVmm,
  statusOf,
  takeEvents,
} from './hotplug-guest.ts';
import type { TestBackend } from './test-backend.ts';
import { TRANSPORTS } from './transports.ts';

const VF_BAR_SIZE = 16384n;

/** A plug brings a socket, or names a path where sockets cannot be carried. */
function wayOf(event: HotplugEvent | undefined): object {
  const path = event?.kind === 'vfPlug' ? event.message.socketPath : undefined;
  return path === undefined ? {} : { socketPath: expect.any(String) };
}

function transportOf(event: HotplugEvent | undefined, backend: TestBackend): Transport {
  if (event?.kind !== 'vfPlug') {
    throw new Error('no VfPlug came');
  }
  const fd = event.takeFd();
  return fd === undefined
    ? backend.openPath(event.message.socketPath ?? '')
    : new UnixTransport(fd);
}

describe.each(TRANSPORTS)('hot-plug over $way', ({ start }) => {
  let backend: TestBackend;
  let vmm: ReferenceVmm | undefined;
  beforeAll(async () => {
    backend = await start({ totalVfs: 63 });
  });
  afterEach(async () => {
    await vmm?.close();
    vmm = undefined;
    await backend.disconnect();
    await reachPhase(backend, 'disabled');
  });
  afterAll(() => backend.stop());

  it('announces VFs in order, each with its facts and a way to it', async () => {
    const client = await backend.connect({ capabilities: AS_VMM });
    const registers = await SriovRegisters.of(client);
    await registers.enable(3);
    const [begin, ...plugs] = await takeEvents(client, 4);
    expect(begin).toMatchObject({ kind: 'enableBegin', message: { numVfs: 3 } });
    const generation = begin?.message.generation ?? 0;
    expect(plugs.map((plug) => plug.message)).toEqual(
      [0, 1, 2].map((vfIndex) => ({
        vfIndex,
        generation,
        routingIdOffset: 1 + vfIndex,
        vendorId: 0x1d0f,
        deviceId: 0x0054,
        bars: [
          {
            index: 0,
            size: VF_BAR_SIZE,
            is64Bit: true,
            prefetchable: true,
            address: BigInt(vfIndex) * VF_BAR_SIZE,
          },
        ],
        msixVectors: 4,
        placementLost: expect.any(Boolean),
        ...wayOf(plugs[vfIndex]),
      })),
    );
    plugs.forEach(dropSocket);
  });

  it('takes acknowledgements in any order, and ends the enable with the last', async () => {
    const client = await backend.connect({ capabilities: AS_VMM });
    const registers = await SriovRegisters.of(client);
    await registers.enable(3);
    const [, ...plugs] = await takeEvents(client, 4);
    plugs.reverse().forEach(agree);
    const [end] = await takeEvents(client, 1);
    expect(end).toMatchObject({ kind: 'enableEnd', message: { outcome: 'enabled' } });
    expect((await statusOf(backend)).phase).toBe('enabled');
  });

  it('gives each VF a session of its own with its own registers', async () => {
    vmm = await startVmm(backend);
    const vfs = await vmm.enableVfs(4);
    const drivers = vfs.map((vf) => new LoopbackDriver(vf));
    for (const [index, driver] of drivers.entries()) {
      expect((await driver.probe()).functionNumber).toBe(1 + index);
      await driver.setScratch(0x1000 + index);
    }
    expect(await Promise.all(drivers.map((driver) => driver.scratch()))).toEqual([
      0x1000, 0x1001, 0x1002, 0x1003,
    ]);
  });

  it('reads a VF’s IDs and BARs as the standard has them: all ones, and zeros', async () => {
    vmm = await startVmm(backend);
    const [vf] = await vmm.enableVfs(1);
    expect(await vf?.config.read(0x00, 4)).toBe(0xffffffff);
    for (let bar = 0x10; bar <= 0x24; bar += 4) {
      expect(await vf?.config.read(bar, 4)).toBe(0);
    }
  });

  it('keeps Memory Space Enable of a VF at 0', async () => {
    vmm = await startVmm(backend);
    const [vf] = await vmm.enableVfs(1);
    await vf?.config.write(0x04, 2, 0x0006);
    expect(await vf?.config.read(0x04, 2)).toBe(0x0004);
  });

  it('unplugs every VF when the guest disables them, and then the VMM holds none', async () => {
    vmm = await startVmm(backend);
    await vmm.enableVfs(5);
    await vmm.disableVfs();
    await reachPhase(backend, 'disabled');
    expect(vmm.vfs.size).toBe(0);
  });

  it('says why and until when at an unplug', async () => {
    const client = await backend.connect({ capabilities: AS_VMM });
    const registers = await SriovRegisters.of(client);
    await registers.enable(1);
    const [begin, plug] = await takeEvents(client, 2);
    agree(plug);
    await takeEvents(client, 1);
    await registers.disable();
    const [unplug] = await takeEvents(client, 1);
    expect(unplug).toMatchObject({
      kind: 'vfUnplug',
      message: {
        vfIndex: 0,
        generation: begin?.message.generation,
        reason: 'guestDisabled',
        deadlineMilliseconds: expect.any(Number),
      },
    });
    agree(unplug);
  });

  it('counts generations up, also on the VF itself', async () => {
    vmm = await startVmm(backend);
    const first = await new LoopbackDriver((await vmm.enableVfs(1))[0]!).probe();
    await vmm.disableVfs();
    const between = await reachPhase(backend, 'disabled');
    const second = await new LoopbackDriver((await vmm.enableVfs(2))[1]!).probe();
    expect(second.generation).toBe(first.generation + 1);
    const { generation, vfs } = await statusOf(backend);
    expect(generation).toBe(between.generation + 1);
    expect(vfs.slice(0, 2).map((vf) => vf.generation)).toEqual([generation, generation]);
  });

  it('unplugs with the reason pfReset when the guest resets the PF, and enables again after it', async () => {
    const reasons: string[] = [];
    vmm = await startVmm(backend, {
      onEvent: (event) => {
        if (event.kind === 'vfUnplug') {
          reasons.push(event.message.reason);
        }
      },
    });
    await vmm.enableVfs(2);
    await vmm.pf.client.reset();
    await reachPhase(backend, 'disabled');
    expect(reasons).toEqual(['pfReset', 'pfReset']);
    expect(vmm.vfs.size).toBe(0);
    await vmm.sriov.restore();
    await reachPhase(backend, 'enabled');
    await expectSoon(() => vmm?.vfs.size, 2);
  });

  it('brings the VFs back after a function level reset of the PF, as Linux restores them', async () => {
    vmm = await startVmm(backend);
    await vmm.enableVfs(2);
    await vmm.pf.functionLevelReset(async () => {
      await reachPhase(backend, 'disabled');
    });
    await vmm.sriov.restore();
    await reachPhase(backend, 'enabled');
    await expectSoon(() => vmm?.vfs.size, 2);
  });

  it('does nothing for VF Enable with NumVFs 0', async () => {
    vmm = await startVmm(backend);
    await vmm.sriov.enable(0);
    expect(await statusOf(backend)).toMatchObject({ phase: 'disabled', vfs: expect.anything() });
    await vmm.sriov.disable();
  });

  it('fails VF Enable with NumVFs above TotalVFs the way hardware does', async () => {
    vmm = await startVmm(backend);
    await expect(vmm.enableVfs(64)).rejects.toThrow('all ones');
    expect(await vmm.enableVfs(2)).toHaveLength(2);
  });

  it('plugs nothing into a glue’s VM but tells it all the same', async () => {
    const glue = await backend.connect({ capabilities: AS_GLUE });
    const device = await backend.connect();
    await device.reset();
    const registers = await SriovRegisters.of(device);
    // Not awaited: the write to VF Enable is answered when the glue has answered.
    const enabling = registers.enable(2);
    const events = await takeEvents(glue, 3);
    expect(events.map((event) => event.kind)).toEqual(['enableBegin', 'vfPlug', 'vfPlug']);
    for (const event of events) {
      expect(event.kind === 'vfPlug' && event.takeFd()).toBeFalsy();
      agree(event);
    }
    expect((await takeEvents(glue, 1))[0]).toMatchObject({
      kind: 'enableEnd',
      message: { outcome: 'enabled' },
    });
    await enabling;
    void obey(glue);
  });

  it('answers a glue’s device commands with EPERM', async () => {
    const glue = await backend.connect({ capabilities: AS_GLUE });
    await expectErrno(glue.deviceInfo(), 'EPERM');
    await expectErrno(glue.readRegion(7, 0, 4), 'EPERM');
    await expectErrno(glue.reset(), 'EPERM');
    await expectErrno(glue.mapDma({ address: 0n, size: 4096n }), 'EPERM');
  });

  it('answers the server’s own commands with ENOSYS when a client sends them', async () => {
    const client = await backend.connect({ capabilities: AS_VMM });
    for (const command of [
      HotplugCommand.enableBegin,
      HotplugCommand.vfPlug,
      HotplugCommand.vfUnplug,
      HotplugCommand.enableEnd,
    ]) {
      await expectErrno(client.call(command, new Uint8Array(8)), 'ENOSYS');
    }
  });

  it('answers a second connection that negotiates hot-plug with EBUSY, in either role', async () => {
    const first = await backend.connect({ capabilities: AS_VMM });
    await expectErrno(backend.connect({ capabilities: AS_GLUE }), 'EBUSY');
    await expectErrno(backend.connect({ capabilities: AS_VMM }), 'EBUSY');
    await first.deviceInfo();
  });

  it('answers a second client of the PF with EBUSY', async () => {
    const first = await backend.connect();
    await expectErrno(backend.connect(), 'EBUSY');
    await first.deviceInfo();
    first.close();
    await expectServing(backend);
  });

  it('serves a VF’s config space before its plug is answered', async () => {
    const client = await backend.connect({ capabilities: AS_VMM });
    const registers = await SriovRegisters.of(client);
    await registers.enable(1);
    const [, plug] = await takeEvents(client, 2);
    const vf = await VfioUserClient.over(transportOf(plug, backend));
    expect((await vf.readRegion(7, 0x0e, 1))[0]).toBe(0);
    await expectErrno(vf.call(Command.version, new Uint8Array(4)), 'EPERM');
    vf.close();
  });
});

describe('hot-plug with file descriptors', () => {
  let backend: Backend;
  let vmm: ReferenceVmm | undefined;
  beforeAll(async () => {
    backend = await Backend.start('--total-vfs=63');
  });
  afterEach(async () => {
    await vmm?.close();
    vmm = undefined;
    await backend.disconnect();
    await reachPhase(backend, 'disabled');
  });
  afterAll(() => backend.stop());

  it('lets a VF do DMA and raise its MSI-X vectors', async () => {
    vmm = await startVmm(backend);
    const vfs = await vmm.enableVfs(3);
    const vf = vfs[2]!;
    await vf.setBusMaster(true);
    const interrupts = await vf.enableMsix();
    vmm.memory.bytes.set([5, 4, 3, 2, 1], 0x1000);
    const driver = new LoopbackDriver(vf);
    await driver.copy({ source: 0x1000n, destination: 0x2000n, length: 5, vector: 3 });
    expect(await interrupts[3]!.next()).toBe(1n);
    expect([...vmm.memory.bytes.subarray(0x2000, 0x2005)]).toEqual([5, 4, 3, 2, 1]);
    await driver.ring(1);
    expect(await interrupts[1]!.next()).toBe(1n);
  });

  it('goes through rounds of 1, 7 and 63 VFs without growing', async () => {
    vmm = await startVmm(backend);
    const fds: number[] = [];
    for (let round = 0; round < 6; round += 1) {
      for (const count of [1, 7, 63]) {
        expect(await vmm.enableVfs(count)).toHaveLength(count);
        await vmm.disableVfs();
        await reachPhase(backend, 'disabled');
      }
      fds.push(backend.fdCount());
    }
    // The observer of the phase may still be there at any one count.
    await expectSoon(() => backend.fdCount() <= Math.min(...fds.slice(0, 3)), true);
  });

  it('ends with a backend that dies: the VMM lets go of all that is mapped of its VFs', async () => {
    const dying = await Backend.start('--total-vfs=2');
    vmm = await startVmm(dying);
    const vfs = await vmm.enableVfs(2);
    expect(vfs.map(({ areas }) => areas.length)).not.toContain(0);
    dying.signal('SIGKILL');
    await expectSoon(() => vmm!.vfs.size, 0);
    expect(vfs.flatMap(({ areas }) => areas)).toEqual([]);
    await dying.stop();
  });

  it('ends with a backend that dies, but for a VMM that keeps what it has mapped', async () => {
    const dying = await Backend.start('--total-vfs=1');
    vmm = await startVmm(dying);
    const [vf] = await vmm.enableVfs(1);
    vmm.unplugManners = 'ignore';
    dying.signal('SIGKILL');
    await vmm.pf.client.closed;
    // Whatever follows from that has been done then.
    await new Promise((resolve) => setImmediate(resolve));
    expect(vmm.vfs.size).toBe(1);
    expect(vf!.areas).not.toEqual([]);
    await dying.stop();
  });

  it('survives a function level reset of a VF with interrupts and memory in place', async () => {
    vmm = await startVmm(backend);
    const [vf] = await vmm.enableVfs(1);
    await vf!.setBusMaster(true);
    const interrupts = await vf!.enableMsix();
    await vf!.functionLevelReset(async () => {});
    await vf!.setBusMaster(true);
    const driver = new LoopbackDriver(vf!);
    await driver.copy({ source: 0n, destination: 64n, length: 8, vector: 0 });
    expect(await interrupts[0]!.next()).toBe(1n);
  });
});
