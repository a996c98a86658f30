// Clients of the hot-plug extension that break its rules or go away at the wrong moment: each leaves the backend and
// everybody else serving, and ends in the right place. safe-disable.test.ts has those that do not let go of VFs.

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Errno } from '../../protocol/errno.ts';
import { HotplugCommand } from '../../protocol/hotplug/commands.ts';
import type { HotplugReply } from '../../protocol/hotplug/messages.ts';
import { createEventFd } from '../../protocol/unix/eventfd.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { Command } from '../../protocol/vfio-user/commands.ts';
import { HeaderFlag } from '../../protocol/vfio-user/messages.ts';
import { encodeVersion } from '../../protocol/vfio-user/version.ts';
import { LoopbackDriver } from '../../vmm-glue/reference-vmm/loopback-driver.ts';
import type { ReferenceVmm } from '../../vmm-glue/reference-vmm/reference-vmm.ts';
import { SOON } from '../patience.ts';
import { Backend, expectErrno, expectServing, expectSoon } from './backend.ts';
import {
  AS_VMM,
  doneReply,
  enableThrough,
  reachPhase,
  startVmm,
  statusOf,
} from './hotplug-guest.ts';
import type { RawPeer, ReceivedFrame } from './raw-peer.ts';
import { SHORT_PATIENCE_MILLISECONDS, type TestBackend } from './test-backend.ts';
import { TRANSPORTS } from './transports.ts';

/** Answers a plug with any bytes; closes the VF's socket. */
function answer(
  peer: RawPeer,
  plug: ReceivedFrame,
  body: Uint8Array,
  fds: readonly number[] = [],
): void {
  plug.fds.splice(0).forEach(closeFd);
  peer.send(HotplugCommand.vfPlug, body, { id: plug.id, flags: HeaderFlag.reply, fds });
}

function done(plug: ReceivedFrame, change: Partial<HotplugReply> = {}): Uint8Array {
  return doneReply(HotplugCommand.vfPlug, plug.body, change);
}

async function asVmm(backend: TestBackend): Promise<RawPeer> {
  const peer = backend.raw();
  await peer.negotiate(AS_VMM);
  return peer;
}

describe.each(TRANSPORTS)('over $way', ({ start }) => {
  let backend: TestBackend;
  let vmm: ReferenceVmm | undefined;
  beforeAll(async () => {
    backend = await start({ totalVfs: 7 });
  });
  afterEach(async () => {
    vmm?.kill();
    vmm = undefined;
    await backend.disconnect();
    await reachPhase(backend, 'disabled');
    await expectServing(backend);
  });
  afterAll(() => backend.stop());

  describe('a VMM that answers a VfPlug badly', () => {
    it.each<[string, Uint8Array]>([
      ['bytes that are no protobuf', Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff)],
      ['a cut varint', Uint8Array.of(0x08, 0x80)],
      ['a length beyond the end', Uint8Array.of(0x2a, 0x7f, 0x41)],
      ['an empty body', new Uint8Array(0)],
      ['64 KiB of zeros', new Uint8Array(65536)],
    ])('has its enable failed for %s', async (_, body) => {
      const peer = await asVmm(backend);
      const [plug] = await enableThrough(peer, 1);
      answer(peer, plug!, body);
      expect((await reachPhase(backend, 'disabled')).failure).toContain('VF 0');
    });

    it('has its enable failed when it refuses a VF, and the reason is in the status', async () => {
      const peer = await asVmm(backend);
      const [plug] = await enableThrough(peer, 1);
      answer(peer, plug!, done(plug!, { result: 'refused', errno: Errno.ENOSPC, text: 'no room' }));
      expect((await reachPhase(backend, 'disabled')).failure).toContain('no room');
    });

    it('has its enable failed when it answers with an error reply', async () => {
      const peer = await asVmm(backend);
      const [plug] = await enableThrough(peer, 1);
      plug!.fds.splice(0).forEach(closeFd);
      const bytes = new Uint8Array(16);
      const view = new DataView(bytes.buffer);
      view.setUint16(0, plug!.id, true);
      view.setUint16(2, HotplugCommand.vfPlug, true);
      view.setUint32(4, 16, true);
      view.setUint32(8, HeaderFlag.reply | HeaderFlag.error, true);
      view.setUint32(12, Errno.ENOMEM, true);
      peer.sendBytes(bytes);
      expect((await reachPhase(backend, 'disabled')).failure).toContain('ENOMEM');
    });

    it('is asked to let go of the VFs it took when it refuses one of them', async () => {
      const peer = await asVmm(backend);
      const plugs = await enableThrough(peer, 3);
      answer(peer, plugs[0]!, done(plugs[0]!));
      answer(peer, plugs[1]!, done(plugs[1]!, { result: 'refused', errno: Errno.EIO, text: 'no' }));
      const commands = new Set<number>();
      while (!commands.has(HotplugCommand.vfUnplug)) {
        commands.add((await peer.next()).command);
      }
      plugs[2]!.fds.splice(0).forEach(closeFd);
    });

    it.each<[string, Partial<HotplugReply>]>([
      ['another VF', { vfIndex: 5 }],
      ['an older generation', { generation: 0xffff }],
    ])(
      'is not believed when it answers for %s; its right answer still counts',
      async (_, wrong) => {
        const peer = await asVmm(backend);
        const [plug] = await enableThrough(peer, 1);
        answer(peer, plug!, done(plug!, wrong));
        expect((await statusOf(backend)).phase).toBe('plugging');
        answer(peer, plug!, done(plug!));
        await reachPhase(backend, 'enabled');
      },
    );

    it('is not believed when it answers under an id that nothing was sent with', async () => {
      const peer = await asVmm(backend);
      const [plug] = await enableThrough(peer, 1);
      peer.send(HotplugCommand.vfPlug, done(plug!), { id: 0x7777, flags: HeaderFlag.reply });
      expect((await statusOf(backend)).phase).toBe('plugging');
      answer(peer, plug!, done(plug!));
      await reachPhase(backend, 'enabled');
    });

    it('is not believed when it answers under another command', async () => {
      const peer = await asVmm(backend);
      const [plug] = await enableThrough(peer, 1);
      peer.send(HotplugCommand.vfUnplug, done(plug!), { id: plug!.id, flags: HeaderFlag.reply });
      expect((await statusOf(backend)).phase).toBe('plugging');
      answer(peer, plug!, done(plug!));
      await reachPhase(backend, 'enabled');
    });

    it('does no harm by answering twice', async () => {
      const peer = await asVmm(backend);
      const [plug] = await enableThrough(peer, 1);
      answer(peer, plug!, done(plug!));
      answer(peer, plug!, done(plug!));
      await reachPhase(backend, 'enabled');
    });
  });

  describe('a VMM that negotiates hot-plug again', () => {
    it.each([
      ['on its own connection', 'EPERM'],
      ['on another connection', 'EBUSY'],
    ] as const)('%s is answered with %s, and its VFs go on working', async (where, errno) => {
      vmm = await startVmm(backend);
      const [vf] = await vmm.enableVfs(2);
      const again =
        where === 'on another connection'
          ? backend.connect({ capabilities: AS_VMM })
          : vmm.pf.client.call(Command.version, encodeVersion(0, 1, AS_VMM));
      await expectErrno(again, errno);
      expect((await new LoopbackDriver(vf!).probe()).functionNumber).toBe(1);
      await vmm.disableVfs();
      await reachPhase(backend, 'disabled');
      expect(await vmm.enableVfs(2)).toHaveLength(2);
    });
  });

  describe('a VMM that goes away', () => {
    it('between plug and acknowledgement leaves nothing behind', async () => {
      const peer = await asVmm(backend);
      const plugs = await enableThrough(peer, 3);
      peer.close();
      for (const plug of plugs) {
        plug.fds.splice(0).forEach(closeFd);
      }
      await reachPhase(backend, 'disabled');
      vmm = await startVmm(backend);
      expect(await vmm.enableVfs(3)).toHaveLength(3);
    });

    it('with VFs enabled leaves nothing behind', async () => {
      vmm = await startVmm(backend);
      await vmm.enableVfs(7);
      vmm.kill();
      await reachPhase(backend, 'disabled');
      vmm = await startVmm(backend);
      const [vf] = await vmm.enableVfs(7);
      expect((await new LoopbackDriver(vf!).probe()).functionNumber).toBe(1);
    });
  });
});

describe.each(TRANSPORTS)('a backend with little patience over $way', ({ start }) => {
  it('fails the enable of a VMM that never answers, which may still hold the VF then', async () => {
    const backend = await start({ patienceMilliseconds: SHORT_PATIENCE_MILLISECONDS });
    const peer = await asVmm(backend);
    const [plug] = await enableThrough(peer, 1);
    const { quarantine } = await reachPhase(backend, 'quarantined');
    expect(quarantine).toEqual([{ vfIndex: 0, holder: expect.stringContaining('VMM') }]);
    await expect.poll(() => backend.log, SOON).toContain('was not answered within');
    plug!.fds.splice(0).forEach(closeFd);
    await backend.stop();
  });
});

describe('with file descriptors', () => {
  let backend: Backend;
  let vmm: ReferenceVmm | undefined;
  beforeAll(async () => {
    backend = await Backend.start('--total-vfs=7', '--unplug-timeout=300');
  });
  afterEach(async () => {
    vmm?.kill();
    vmm = undefined;
    await backend.disconnect();
    await reachPhase(backend, 'disabled');
    await expectServing(backend);
  });
  afterAll(() => backend.stop());

  it('a VMM gets no fds into the backend with its answer', async () => {
    const peer = await asVmm(backend);
    const [plug] = await enableThrough(peer, 1);
    const line = createEventFd();
    await statusOf(backend);
    const before = backend.fdCount();
    answer(peer, plug!, done(plug!), [line, line]);
    await reachPhase(backend, 'enabled');
    // The VF's own session ends with the socket that was closed above.
    await expectSoon(() => backend.fdCount() <= before, true);
    closeFd(line);
  });

  it('a VMM that dies and comes back again and again costs the backend no fd', async () => {
    const fds: number[] = [];
    // A round is hundreds of round trips between two processes; what costs an fd now and then shows in few rounds.
    for (let round = 0; round < 20; round += 1) {
      vmm = await startVmm(backend);
      await vmm.enableVfs(2);
      vmm.kill();
      await reachPhase(backend, 'disabled');
      fds.push(backend.fdCount());
    }
    // The observer of the phase may still be there at any one count.
    await expectSoon(() => backend.fdCount() <= Math.min(...fds.slice(0, 5)), true);
  });

  it('a VMM that does not let go of its VFs can use the PF all the while', async () => {
    vmm = await startVmm(backend);
    await vmm.enableVfs(1);
    vmm.unplugManners = 'ignore';
    await vmm.disableVfs();
    await reachPhase(backend, 'quarantined');
    const driver = new LoopbackDriver(vmm.pf);
    expect((await driver.probe()).functionNumber).toBe(0);
    const interrupts = await vmm.pf.enableMsix();
    await driver.ring(2);
    expect(await interrupts[2]!.next()).toBe(1n);
  });

  it('a VMM that does not let go of a VF cannot reach it once the guest has disabled it', async () => {
    vmm = await startVmm(backend);
    const [vf] = await vmm.enableVfs(1);
    vmm.unplugManners = 'ignore';
    await vmm.disableVfs();
    expect(await vf!.readRegister(0, 0)).toBe(0xffffffff);
  });
});
