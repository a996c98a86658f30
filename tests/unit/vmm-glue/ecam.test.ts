// A guest whose machine has no configuration ports: its config space is written to as memory, through QEMU's qtest.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FakeBackend } from '../../fakes/hotplug-backend.ts';
import { SOON } from '../../patience.ts';
import { DONE, GlueRig } from './glue-rig.ts';

let rig: GlueRig;

beforeEach(async () => {
  rig = await GlueRig.start();
  rig.qemu.arch = 'aarch64';
});

afterEach(() => rig.end());

describe('an enable', () => {
  it('puts the VFs where they belong while the guest stands still, without a port', async () => {
    await rig.attach();
    expect(await rig.enable(2, { placementLost: true })).toEqual([DONE, DONE, DONE]);
    expect([1, 2].map((devfn) => rig.qemu.register(1, devfn, 0x14))).toEqual([8, 8]);
    expect([1, 2].map((devfn) => rig.qemu.register(1, devfn, 4))).toEqual([2, 2]);
    expect(rig.qemu.portCommands()).toEqual([]);
    expect(rig.qemu.unsafeWrites).toBe(0);
  });

  it("leaves Status alone, which is in Command's dword", async () => {
    rig.qemu.config.set(0x8001_0104, 0x0010_0000);
    await rig.attach();
    await rig.enable(1, { placementLost: true });
    expect(rig.qemu.register(1, 1, 4)).toBe(0x0010_0002);
  });

  it('counts one command for a write', async () => {
    await rig.attach();
    await rig.enable(1, { placementLost: true });
    await vi.waitFor(() => expect(rig.timings).toMatchObject([{ placementCommands: 2 }]), SOON);
  });

  it('connects anew where the line has broken', async () => {
    await rig.attach();
    rig.qemu.breakQtest();
    await rig.enable(1, { placementLost: true });
    expect(rig.qemu.register(1, 1, 4)).toBe(2);
    expect(rig.qemu.qtestObjects).toBe(1);
  });

  it('goes by what a glue before this one had QEMU make, which would not answer another', async () => {
    await rig.attach();
    await rig.glue?.close();
    rig.backend = new FakeBackend();
    await rig.attach();
    await rig.enable(1, { placementLost: true });
    expect(rig.qemu.register(1, 1, 4)).toBe(2);
    expect(rig.qemu.qtestObjects).toBe(1);
  });
});

it('nothing stays connected where attaching fails later', async () => {
  rig.qemu.functions = [];
  await expect(rig.attach()).rejects.toThrow('no vfio-user-pci device');
  await vi.waitFor(() => expect(rig.qemu.qtestClients).toBe(0), SOON);
});

describe('attaching is refused', () => {
  it('where QEMU has a qtest of its own, with the fix', async () => {
    rig.qemu.react('object-add', 'refuse');
    await expect(rig.attach()).rejects.toThrow(
      /config space.*no object-add today.*leave out -qtest/s,
    );
  });

  it('by a machine whose config space is not where it is looked for, by name', async () => {
    rig.qemu.hostBridges = [];
    await expect(rig.attach()).rejects.toThrow(/some-machine.*use -machine virt/s);
  });

  it('by a processor that nothing is known of', async () => {
    rig.qemu.arch = 'riscv64';
    await expect(rig.attach()).rejects.toThrow(/QEMU for riscv64.*qemu-system-aarch64/s);
  });
});
