// What every guest must find true of a loopback PF, whatever its kernel is and whoever booted it: VFs come, work, survive
// resets, go, and a restart takes them away.
import { expect, it } from 'vitest';
import type { SriovGuest } from './sriov-guest.ts';

/** One more than there are functions beside the PF at device 0. */
export const VFS = 8;
/** The first, and the one at device 1. */
const LOOKED_AT = [0, 7];
const WORK = 'read=4 ring=0 ring=3 copy=100000:2 flr ring=1 copy=5000:0 read=4';

/** Options with which the guest must have been booted. */
export const USUAL_DAY = { launcher: [`--total-vfs=${VFS}`], iommu: true } as const;

/** Enables all VFs, which are where they belong and no others' registers. */
export async function enableAll(guest: SriovGuest): Promise<void> {
  await guest.setNumVfs(VFS);
  expect(await guest.virtfns()).toEqual(Array.from({ length: VFS }, (_, vf) => guest.vf(vf)));
  await guest.expectVfContents(VFS);
}

/** Registers, interrupts and DMA of a VF, before and after a function level reset; it has no driver afterwards. */
export async function expectToWork(guest: SriovGuest, vfIndex: number): Promise<void> {
  const vf = guest.vf(vfIndex);
  await guest.bindDriver('vfio-pci', vf);
  const id = `0x${(vfIndex + 1).toString(16).padStart(8, '0')}`;
  expect((await guest.vm.check(`pci-function drive ${vf} ${WORK}`)).split('\n')).toEqual([
    id,
    'interrupt at vector 0',
    'interrupt at vector 3',
    '100000 bytes copied, interrupt at vector 2',
    'flr',
    'interrupt at vector 1',
    '5000 bytes copied, interrupt at vector 0',
    id,
  ]);
  // A VF that vfio-pci has and nobody uses is in D3hot, where its memory does not answer.
  await guest.vm.check(`echo ${vf} > /sys/bus/pci/devices/${vf}/driver/unbind`);
}

/**
 * Registers the tests; `booted` gives the guest once it is up, its PF without a driver; `expectItsMemory` is asked whenever VFs have
 * come up anew.
 */
export function tellUsualDay(
  booted: () => SriovGuest,
  expectItsMemory: () => Promise<void> = async () => {},
): void {
  tellEnable(booted, expectItsMemory);
  tellWork(booted);
  tellResets(booted, expectItsMemory);
  tellWork(booted);
  tellNoComplaints(booted);
}

/** The PF gets its driver, and all VFs are enabled. */
function tellEnable(booted: () => SriovGuest, expectItsMemory: () => Promise<void>): void {
  it('VFs are enabled, and each shows its own contents', async () => {
    await booted().bindDriver('pci-pf-stub');
    await enableAll(booted());
    await expectItsMemory();
  });
}

/** For a guest with an IOMMU. */
function tellWork(booted: () => SriovGuest): void {
  it('interrupts and DMA of VFs work, before and after a function level reset', async () => {
    for (const vfIndex of LOOKED_AT) {
      await expectToWork(booted(), vfIndex);
    }
  });
}

/** With all VFs enabled, before and after. */
function tellResets(booted: () => SriovGuest, expectItsMemory: () => Promise<void>): void {
  it('a function level reset of the PF takes its VFs along, and the guest gets them back', async () => {
    await booted().vm.check(`echo 1 > ${booted().sysfs}/reset`);
    await booted().expectVfContents(VFS);
    await expectItsMemory();
  });

  it('VFs are disabled, and enabled again', async () => {
    await booted().setNumVfs(0);
    expect(await booted().virtfns()).toEqual([]);
    await enableAll(booted());
    await expectItsMemory();
  });

  it('a restart with VFs enabled begins without any, and they can be enabled again', async () => {
    await booted().reboot();
    expect(await booted().virtfns()).toEqual([]);
    await booted().bindDriver('pci-pf-stub');
    await enableAll(booted());
    await expectItsMemory();
  });
}

function tellNoComplaints(booted: () => SriovGuest): void {
  it('neither the kernel nor QEMU had anything to complain of', async () => {
    await booted().expectNoComplaints();
  });
}
