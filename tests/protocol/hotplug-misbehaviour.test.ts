// Clients of the hot-plug extension that break its rules, go away at the wrong moment, or do not let go: each leaves
// the backend and everybody else serving, and ends in the right place.

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Errno } from '../../protocol/errno.ts';
import {
  decodeVfPlug,
  encodeHotplugReply,
  HotplugCommand,
  type HotplugReply,
} from '../../protocol/hotplug/codec.ts';
import { createEventFd } from '../../protocol/unix/eventfd.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { HeaderFlag } from '../../protocol/vfio-user/messages.ts';
import { LoopbackDriver } from '../../vmm-glue/reference-vmm/loopback-driver.ts';
import type { ReferenceVmm } from '../../vmm-glue/reference-vmm/reference-vmm.ts';
import { Backend, expectServing, expectSoon } from './backend.ts';
import { AS_VMM, enableThrough, reachPhase, startVmm, statusOf } from './hotplug-guest.ts';
import type { RawPeer, ReceivedFrame } from './raw-peer.ts';

let backend: Backend;
let vmm: ReferenceVmm | undefined;
beforeAll(async () => {
  backend = await Backend.start('--total-vfs=7', '--plug-timeout=300', '--unplug-timeout=300');
});
afterEach(async () => {
  vmm?.kill();
  vmm = undefined;
  await backend.disconnect();
  await reachPhase(backend, 'disabled');
  await expectServing(backend);
});
afterAll(() => backend.stop());

async function rawVmm(): Promise<RawPeer> {
  const peer = backend.raw();
  await peer.negotiate(AS_VMM);
  return peer;
}

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
  const { vfIndex, generation } = decodeVfPlug(plug.body);
  return encodeHotplugReply({ vfIndex, generation, result: 'done', errno: 0, text: '', ...change });
}

describe('a VMM that answers a VfPlug badly', () => {
  it.each<[string, Uint8Array]>([
    ['bytes that are no protobuf', Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff)],
    ['a cut varint', Uint8Array.of(0x08, 0x80)],
    ['a length beyond the end', Uint8Array.of(0x2a, 0x7f, 0x41)],
    ['an empty body', new Uint8Array(0)],
    ['64 KiB of zeros', new Uint8Array(65536)],
  ])('has its enable failed for %s', async (_, body) => {
    const peer = await rawVmm();
    const [plug] = await enableThrough(peer, 1);
    answer(peer, plug!, body);
    expect((await reachPhase(backend, 'disabled')).failure).toContain('VF 0');
  });

  it('has its enable failed when it refuses a VF, and the reason is in the status', async () => {
    const peer = await rawVmm();
    const [plug] = await enableThrough(peer, 1);
    answer(peer, plug!, done(plug!, { result: 'refused', errno: Errno.ENOSPC, text: 'no room' }));
    expect((await reachPhase(backend, 'disabled')).failure).toContain('no room');
  });

  it('has its enable failed when it answers with an error reply', async () => {
    const peer = await rawVmm();
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
    const peer = await rawVmm();
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
  ])('is not believed when it answers for %s; its right answer still counts', async (_, wrong) => {
    const peer = await rawVmm();
    const [plug] = await enableThrough(peer, 1);
    answer(peer, plug!, done(plug!, wrong));
    expect((await statusOf(backend)).phase).toBe('plugging');
    answer(peer, plug!, done(plug!));
    await reachPhase(backend, 'enabled');
  });

  it('is not believed when it answers under an id that nothing was sent with', async () => {
    const peer = await rawVmm();
    const [plug] = await enableThrough(peer, 1);
    peer.send(HotplugCommand.vfPlug, done(plug!), { id: 0x7777, flags: HeaderFlag.reply });
    expect((await statusOf(backend)).phase).toBe('plugging');
    answer(peer, plug!, done(plug!));
    await reachPhase(backend, 'enabled');
  });

  it('is not believed when it answers under another command', async () => {
    const peer = await rawVmm();
    const [plug] = await enableThrough(peer, 1);
    peer.send(HotplugCommand.vfUnplug, done(plug!), { id: plug!.id, flags: HeaderFlag.reply });
    expect((await statusOf(backend)).phase).toBe('plugging');
    answer(peer, plug!, done(plug!));
    await reachPhase(backend, 'enabled');
  });

  it('does no harm by answering twice', async () => {
    const peer = await rawVmm();
    const [plug] = await enableThrough(peer, 1);
    answer(peer, plug!, done(plug!));
    answer(peer, plug!, done(plug!));
    await reachPhase(backend, 'enabled');
  });

  it('gets no fds into the backend with its answer', async () => {
    const peer = await rawVmm();
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

  it('has its enable failed when it never answers, and may still hold the VF then', async () => {
    const peer = await rawVmm();
    const [plug] = await enableThrough(peer, 1);
    const { quarantine } = await reachPhase(backend, 'quarantined');
    expect(quarantine).toEqual([{ vfIndex: 0, holder: expect.stringContaining('VMM') }]);
    expect(backend.log).toContain('was not answered within');
    plug!.fds.splice(0).forEach(closeFd);
  });
});

describe('a VMM that goes away', () => {
  it('between plug and acknowledgement leaves nothing behind', async () => {
    const peer = await rawVmm();
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

  it('in the middle of an unplug leaves nothing behind', async () => {
    vmm = await startVmm(backend);
    await vmm.enableVfs(2);
    vmm.unplugManners = 'ignore';
    await vmm.disableVfs();
    expect((await statusOf(backend)).phase).toBe('unplugging');
    vmm.kill();
    await reachPhase(backend, 'disabled');
  });

  it('and comes back a hundred times costs the backend no fd', async () => {
    const fds: number[] = [];
    for (let round = 0; round < 100; round += 1) {
      vmm = await startVmm(backend);
      await vmm.enableVfs(2);
      vmm.kill();
      await reachPhase(backend, 'disabled');
      fds.push(backend.fdCount());
    }
    // The observer of the phase may still be there at any one count.
    await expectSoon(() => backend.fdCount() <= Math.min(...fds.slice(0, 5)), true);
  });
});

describe('a VMM that does not let go', () => {
  it.each(['refuse', 'ignore'] as const)(
    'and says %s puts its VFs into quarantine until it does',
    async (manners) => {
      vmm = await startVmm(backend);
      await vmm.enableVfs(3);
      vmm.unplugManners = manners;
      await vmm.disableVfs();
      const status = await reachPhase(backend, 'quarantined');
      expect(status.quarantine.map(({ vfIndex }) => vfIndex)).toEqual([0, 1, 2]);
      expect(status.quarantine[0]?.holder).toContain('VMM');
      await expect(vmm.enableVfs(1)).rejects.toThrow('all ones');
      vmm.kill();
      await reachPhase(backend, 'disabled');
      vmm = await startVmm(backend);
      expect(await vmm.enableVfs(3)).toHaveLength(3);
    },
  );

  it('and answers late gets its VFs out of quarantine by that', async () => {
    const late: (() => void)[] = [];
    vmm = await startVmm(backend, {
      onEvent: (event) => {
        if (event.kind === 'vfUnplug') {
          late.push(() => event.done());
        }
      },
    });
    await vmm.enableVfs(2);
    vmm.unplugManners = 'ignore';
    await vmm.disableVfs();
    await reachPhase(backend, 'quarantined');
    await vmm.releaseVfs();
    for (const answerLate of late) {
      answerLate();
    }
    await reachPhase(backend, 'disabled');
    vmm.unplugManners = 'release';
    expect(await vmm.enableVfs(2)).toHaveLength(2);
  });

  it('keeps the PF working all the while', async () => {
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

  it('cannot reach a VF any more once the guest has disabled it', async () => {
    vmm = await startVmm(backend);
    const [vf] = await vmm.enableVfs(1);
    vmm.unplugManners = 'ignore';
    await vmm.disableVfs();
    expect(await vf!.readRegister(0, 0)).toBe(0xffffffff);
  });
});
