// A guest that GRUB has booted from a disk, by QEMU's own BIOS. Under --full.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IS_FULL } from '../full.ts';
import { grubArguments } from '../lab/grub.ts';
import { SriovGuest } from './sriov-guest.ts';
import { tellUsualDay, USUAL_DAY } from './usual-day.ts';

describe.runIf(IS_FULL)('GRUB', () => {
  let guest: SriovGuest;

  beforeAll(async () => {
    const began = performance.now();
    guest = await SriovGuest.boot({ ...USUAL_DAY, makeBootDisk: grubArguments });
    console.log(`GRUB: up after ${((performance.now() - began) / 1000).toFixed(1)} s`);
  });

  afterAll(async () => {
    await guest?.end();
  });

  it('is what started the kernel', async () => {
    expect(await guest.vm.check('cat /proc/cmdline')).toMatch(/^BOOT_IMAGE=\/vmlinuz /);
  });

  tellUsualDay(() => guest);
});
