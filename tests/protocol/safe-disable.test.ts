// Taking VFs away from a VMM that opens them itself, on a host that behaves as Linux was measured to: whatever the VMM
// does, the host is not told to remove VFs before nobody refers to them, or its kernel would wait for ever.

import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { decodeVfUnplug, encodeHotplugReply } from '../../protocol/hotplug/codec.ts';
import { HotplugCommand } from '../../protocol/hotplug/commands.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { HeaderFlag } from '../../protocol/vfio-user/messages.ts';
import type { PciFunction } from '../../vmm-glue/reference-vmm/pci-function.ts';
import type { ReferenceVmm } from '../../vmm-glue/reference-vmm/reference-vmm.ts';
import { KernelDevice } from '../fakes/kernel-device.ts';
import {
  AS_VMM,
  answerDone,
  disableThrough,
  enableThrough,
  reachPhase,
  startVmm,
  statusOf,
} from './hotplug-guest.ts';
import { InProcessBackend } from './in-process-backend.ts';
import type { RawPeer, ReceivedFrame } from './raw-peer.ts';
import { SHORT_PATIENCE_MILLISECONDS, type TestBackend } from './test-backend.ts';
import { ThreadBackend } from './thread-backend.ts';

/** `holds`: whether a VMM in this process still has the VF, as the kernel would know. */
const WAYS = [
  {
    way: 'a unix socket',
    start: ThreadBackend.start,
    holds: (vfIndex: number): boolean =>
      readFileSync('/proc/self/maps', 'utf8').includes(`/memfd:loopback-vf${vfIndex}-bar0 `),
  },
  {
    way: 'an in-process pair',
    start: async (device: KernelDevice): Promise<TestBackend> =>
      new InProcessBackend({ device, patienceMilliseconds: SHORT_PATIENCE_MILLISECONDS }),
    // Nothing can be mapped here: a session is all that a VMM may keep.
    holds: (_vfIndex: number, vf: PciFunction | undefined): boolean => vf?.client.isOpen === true,
  },
];

describe.each(WAYS)('VFs over $way', ({ start, holds }) => {
  let device: KernelDevice;
  let backend: TestBackend;
  let vmm: ReferenceVmm | undefined;
  beforeEach(async () => {
    device = new KernelDevice({ totalVfs: 4, vfBarSize: 16384, enableMilliseconds: 0 });
    backend = await start(device);
  });
  afterEach(async () => {
    vmm?.kill();
    vmm = undefined;
    await backend.disconnect();
    device.goOn();
    await reachPhase(backend, 'disabled');
    expect(device.kernel.everStuck).toBe(false);
    expect(device.kernel.count).toBe(0);
    // The guest can go on using SR-IOV.
    vmm = await startVmm(backend);
    expect(await vmm.enableVfs(3)).toHaveLength(3);
    await vmm.close();
    vmm = undefined;
    await reachPhase(backend, 'disabled');
    await backend.stop();
  });

  /** A VMM with 2 VFs, of which the kernel knows what it holds. */
  async function enabled(): Promise<{ vmm: ReferenceVmm; vfs: PciFunction[] }> {
    vmm = await startVmm(backend);
    const vfs = await vmm.enableVfs(2);
    device.holderOf = (vfIndex) => (holds(vfIndex, vfs[vfIndex]) ? `VF ${vfIndex}` : undefined);
    return { vmm, vfs };
  }

  it('go when the VMM has let go of them', async () => {
    const { vmm } = await enabled();
    await vmm.disableVfs();
    await reachPhase(backend, 'disabled');
    expect(device.kernel.asked).toEqual(['createVfs', 'releaseVfs', 'destroyVfs']);
  });

  it('stay in quarantine while the VMM says done and keeps what it has, and go when it ends', async () => {
    const { vmm } = await enabled();
    vmm.unplugManners = 'lie';
    await vmm.disableVfs();
    const { quarantine } = await reachPhase(backend, 'quarantined');
    expect(quarantine).toEqual([
      { vfIndex: 0, holder: 'VMM: VF 0' },
      { vfIndex: 1, holder: 'VMM: VF 1' },
    ]);
    await expect(vmm.enableVfs(1)).rejects.toThrow('all ones');
    expect((await statusOf(backend)).phase).toBe('quarantined');
    expect(device.kernel.asked).not.toContain('destroyVfs');
    await vmm.releaseVfs();
    await reachPhase(backend, 'disabled');
    vmm.unplugManners = 'release';
    expect(await vmm.enableVfs(2)).toHaveLength(2);
  });

  it.each(['ignore', 'refuse'] as const)(
    'stay in quarantine when the VMM answers VfUnplug with %s, and go when it dies',
    async (manners) => {
      const { vmm } = await enabled();
      vmm.unplugManners = manners;
      await vmm.disableVfs();
      const { quarantine } = await reachPhase(backend, 'quarantined');
      expect(quarantine.map(({ holder }) => holder)).toEqual([
        expect.stringContaining('VMM'),
        expect.stringContaining('VMM'),
      ]);
      expect(device.kernel.asked).toEqual(['createVfs']);
      await expect(vmm.enableVfs(1)).rejects.toThrow('all ones');
      vmm.kill();
      await reachPhase(backend, 'disabled');
    },
  );

  it('go when the VMM dies in the middle of an unplug', async () => {
    const { vmm } = await enabled();
    vmm.unplugManners = 'ignore';
    await vmm.disableVfs();
    expect((await statusOf(backend)).phase).toBe('unplugging');
    vmm.kill();
    await reachPhase(backend, 'disabled');
  });

  it('stay while a VMM that died has left something behind that refers to them', async () => {
    const { vmm } = await enabled();
    device.holderOf = (vfIndex) => (vfIndex === 1 ? 'its child' : undefined);
    vmm.kill();
    const { quarantine } = await reachPhase(backend, 'quarantined');
    expect(quarantine).toEqual([{ vfIndex: 1, holder: 'VMM: its child' }]);
    device.holderOf = () => undefined;
    await reachPhase(backend, 'disabled');
  });

  it('go by the answer to the VfUnplug at hand: not by another generation’s, but by a late one', async () => {
    const peer = backend.raw();
    const unplugs = await unplugged(peer, 2);
    for (const unplug of unplugs) {
      const { vfIndex, generation } = decodeVfUnplug(unplug.body);
      const wrong = { vfIndex, generation: generation + 1, result: 'done' } as const;
      const body = encodeHotplugReply({ ...wrong, errno: 0, text: '' });
      peer.send(HotplugCommand.vfUnplug, body, { id: unplug.id, flags: HeaderFlag.reply });
    }
    expect((await reachPhase(backend, 'quarantined')).quarantine).toHaveLength(2);
    answerDone(peer, unplugs[1]!);
    expect((await statusOf(backend)).phase).toBe('quarantined');
    expect(device.kernel.asked).toEqual(['createVfs']);
    answerDone(peer, unplugs[0]!);
    await reachPhase(backend, 'disabled');
  });

  it('are all answered for before the host is asked anything', async () => {
    const peer = backend.raw();
    const unplugs = await unplugged(peer, 3);
    for (const unplug of unplugs.slice(1)) {
      answerDone(peer, unplug);
    }
    expect((await statusOf(backend)).phase).toBe('unplugging');
    expect(device.kernel.asked).toEqual(['createVfs']);
    answerDone(peer, unplugs[0]!);
    await reachPhase(backend, 'disabled');
  });

  it('are shown by the status while the host is stuck making or removing them', async () => {
    vmm = await startVmm(backend);
    device.stick();
    await vmm.sriov.enable(2);
    expect(await statusOf(backend)).toMatchObject({ phase: 'creating', numVfs: 2 });
    device.goOn();
    await reachPhase(backend, 'enabled');
    device.stick();
    await vmm.disableVfs();
    expect((await reachPhase(backend, 'releasing')).vfs[1]).toMatchObject({ state: 'absent' });
    device.goOn();
    await reachPhase(backend, 'disabled');
  });

  /** The unanswered VfUnplugs of VFs that a VMM has taken and its guest has disabled again. */
  async function unplugged(peer: RawPeer, count: number): Promise<ReceivedFrame[]> {
    await peer.negotiate(AS_VMM);
    for (const plug of await enableThrough(peer, count)) {
      plug.fds.splice(0).forEach(closeFd);
      answerDone(peer, plug);
    }
    await reachPhase(backend, 'enabled');
    return disableThrough(peer, count);
  }
});
