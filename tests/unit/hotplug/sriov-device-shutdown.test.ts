// The end of the device: VFs are taken away first, and nobody can hold it up.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HotplugCommand } from '../../../protocol/hotplug/commands.ts';
import { AS_VMM, type Client, LIMITS, SriovDeviceRig, subjectOf, VMM } from './sriov-device-rig.ts';

let rig: SriovDeviceRig;

beforeEach(() => {
  rig = new SriovDeviceRig();
});

afterEach(() => rig.end());

describe('shutting down', () => {
  let vmm: Client;
  let isDone: boolean;
  beforeEach(() => {
    isDone = false;
    vmm = rig.attach(rig.device.pfEndpoint, AS_VMM);
  });
  const shutDown = (): void =>
    rig.device.shutDown(() => {
      isDone = true;
    });

  it('is done at once where there are no VFs', () => {
    shutDown();
    expect(isDone).toBe(true);
  });

  it('takes the VFs away first', () => {
    rig.setVfEnable(vmm, 2);
    rig.settle();
    shutDown();
    expect(isDone).toBe(false);
    rig.settle();
    expect(isDone).toBe(true);
    expect(rig.host.count).toBe(0);
  });

  it('leaves VFs that somebody holds to the rig.host, rather than wait for ever', () => {
    vmm.onCommand = (frame) => {
      if (frame.command === HotplugCommand.vfPlug) {
        rig.host.hold(subjectOf(frame).vfIndex, VMM);
      }
    };
    rig.setVfEnable(vmm, 1);
    rig.settle();
    shutDown();
    rig.settle();
    expect(isDone).toBe(true);
    expect(rig.host.count).toBe(1);
    rig.host.letGo(0, VMM);
  });

  it('waits for a VMM that does not answer no longer than its deadline', () => {
    rig.setVfEnable(vmm, 1);
    rig.settle();
    vmm.answers = false;
    shutDown();
    rig.settle();
    expect(isDone).toBe(false);
    rig.clock.elapse(LIMITS.unplugMilliseconds);
    rig.settle();
    expect(isDone).toBe(true);
  });

  it('is not held up by a guest that enables VFs again and again', () => {
    rig.setVfEnable(vmm, 1);
    rig.settle();
    shutDown();
    for (let round = 0; round < 5; round++) {
      rig.clearVfEnable(vmm);
      rig.setVfEnable(vmm, 2);
      rig.settle();
    }
    expect(isDone).toBe(true);
    expect(rig.host.asked.filter((name) => name === 'createVfs')).toHaveLength(1);
  });
});
