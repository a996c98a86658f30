// The device as a whole with a VMM that knows hot-plug, over a host that behaves as Linux does.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { decodeVfUnplug } from '../../../protocol/hotplug/codec.ts';
import { HotplugCommand } from '../../../protocol/hotplug/commands.ts';
import { createEventFd } from '../../../protocol/unix/eventfd.ts';
import { Command } from '../../../protocol/vfio-user/commands.ts';
import { encodeFrame } from '../../../protocol/vfio-user/framing.ts';
import { openFds } from '../protocol/unix/open-fds.ts';
import { AS_VMM, type Client, LIMITS, SriovDeviceRig, subjectOf, VMM } from './sriov-device-rig.ts';

let rig: SriovDeviceRig;

beforeEach(() => {
  rig = new SriovDeviceRig();
});

afterEach(() => rig.end());

describe('a VMM that knows hot-plug', () => {
  let vmm: Client;
  beforeEach(() => {
    vmm = rig.attach(rig.device.pfEndpoint, AS_VMM);
    vmm.onCommand = (frame) => {
      if (frame.command === HotplugCommand.vfPlug) {
        rig.host.hold(subjectOf(frame).vfIndex, VMM);
      }
      if (frame.command === HotplugCommand.vfUnplug) {
        rig.host.letGo(subjectOf(frame).vfIndex, VMM);
      }
    };
  });

  it('has VFs from when the guest enables them to when it disables them', () => {
    rig.setVfEnable(vmm, 2);
    rig.settle();
    expect(rig.status()).toMatchObject({
      phase: 'enabled',
      numVfs: 2,
      generation: 1,
      hotplug: 'vmm',
    });
    expect(rig.status().vfs.map(({ state, holder }) => [state, holder])).toEqual([
      ['up', 'vmm'],
      ['up', 'vmm'],
      ['absent', null],
      ['absent', null],
    ]);
    rig.clearVfEnable(vmm);
    rig.settle();
    expect(rig.status()).toMatchObject({ phase: 'disabled', failure: null, quarantine: [] });
    expect(rig.host.count).toBe(0);
  });

  it('is told in the status why an enable of more than there are came to nothing, until the next one', () => {
    rig.setVfEnable(vmm, 5);
    rig.settle();
    rig.clearVfEnable(vmm);
    rig.settle();
    const failure = 'NumVFs is 5, but TotalVFs 4';
    expect(rig.status()).toMatchObject({ phase: 'disabled', vfEnable: false, failure });
    expect(rig.log).toContain(`warn: VF Enable failed: ${failure}`);
    expect(rig.host.count).toBe(0);
    rig.setVfEnable(vmm, 1);
    rig.settle();
    expect(rig.status()).toMatchObject({ phase: 'enabled', failure: null });
  });

  it('leaves nothing open here after twenty rounds', () => {
    const open = openFds();
    for (let round = 0; round < 20; round++) {
      rig.setVfEnable(vmm, 4);
      rig.settle();
      rig.clearVfEnable(vmm);
      rig.settle();
    }
    expect(openFds()).toBe(open);
    expect(rig.opened.filter(({ isClosed }) => isClosed)).toHaveLength(80);
  });

  it('that keeps a mapping puts the VFs into a quarantine that the status shows, and that ends by itself', () => {
    vmm.onCommand = (frame) => {
      if (frame.command === HotplugCommand.vfPlug) {
        rig.host.hold(subjectOf(frame).vfIndex, 'vt (262)');
      }
    };
    rig.setVfEnable(vmm, 2);
    rig.settle();
    rig.clearVfEnable(vmm);
    rig.settle();
    expect(rig.status().quarantine).toEqual([
      { vfIndex: 0, holder: 'vt (262)' },
      { vfIndex: 1, holder: 'vt (262)' },
    ]);
    expect(rig.status().vfs[1]).toMatchObject({ state: 'absent', holder: 'vt (262)' });
    rig.setVfEnable(vmm, 1);
    rig.settle();
    expect(rig.log.at(-1)).toMatch(/VF Enable failed: .*VF 0 is held by vt/);
    rig.clearVfEnable(vmm);
    for (const vfIndex of [0, 1]) {
      rig.host.letGo(vfIndex, 'vt (262)');
    }
    rig.clock.elapse(LIMITS.retryMilliseconds);
    rig.settle();
    expect(rig.status()).toMatchObject({ phase: 'disabled', quarantine: [] });
    expect(rig.host.count).toBe(0);
  });

  it('that dies takes its VFs with it, once its files are closed', () => {
    rig.setVfEnable(vmm, 2);
    rig.settle();
    for (const vfIndex of [0, 1]) {
      rig.host.letGo(vfIndex, VMM);
    }
    vmm.session.disconnected();
    rig.settle();
    expect(rig.status()).toMatchObject({ phase: 'disabled', vfEnable: false, hotplug: null });
    expect(rig.host.count).toBe(0);
  });

  it('that resets the PF loses its VFs, for that reason', () => {
    rig.setVfEnable(vmm, 1);
    rig.settle();
    vmm.send(Command.deviceReset, new Uint8Array(0));
    vmm.turn();
    rig.settle();
    const unplug = vmm.told.find(({ command }) => command === HotplugCommand.vfUnplug);
    expect(decodeVfUnplug(unplug!.body).reason).toBe('pfReset');
    expect(rig.status()).toMatchObject({ phase: 'disabled', numVfs: 0 });
  });

  it('can answer VfUnplug while its own DEVICE_RESET is unanswered, which is what the reset may wait for', () => {
    rig.setVfEnable(vmm, 1);
    rig.settle();
    rig.opened[0]!.isSlow = true;
    vmm.session.receive(encodeFrame({ id: 5, command: Command.deviceReset, flags: 0 }), []);
    rig.settle();
    expect(rig.status().phase).toBe('disabled');
    rig.opened[0]!.finish();
    expect(vmm.connection.takeSent()).toMatchObject([{ id: 5, error: 0 }]);
  });

  it('finds the enable failed when a VF cannot be wired up, and none of them left', () => {
    const line = createEventFd();
    rig.device.vfs[1]!.attach({ knowsHotplug: true, seesAllAtOnce: true });
    rig.device.vfs[1]!.setIrqs({ index: 2, start: 0, count: 1, flags: 0x24, eventFds: [line] });
    const { push } = rig.opened;
    rig.opened.push = (each) => {
      each.refusesIrqs = true;
      return push.call(rig.opened, each);
    };
    rig.setVfEnable(vmm, 2);
    rig.settle();
    rig.opened.push = push;
    expect(rig.status()).toMatchObject({
      phase: 'disabled',
      failure: expect.stringMatching(/VFIO_DEVICE_SET_IRQS/),
    });
    expect(rig.headerType(1)).toBe(0xff);
    expect(rig.host.count).toBe(0);
    rig.device.vfs[1]!.detach();
  });
});
