// Guests that GRUB has booted from a disk, by QEMU's own BIOS and by OVMF. Under --full, a boot each.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IS_FULL } from '../full.ts';
import { efiArguments } from '../lab/firmware.ts';
import { grubArguments, grubEfiArguments } from '../lab/grub.ts';
import { SriovGuest } from './sriov-guest.ts';
import { tellUsualDay, USUAL_DAY } from './usual-day.ts';

describe.runIf(IS_FULL).each([
  { by: 'the BIOS', makeBootDisk: grubArguments, firmware: async () => [], efi: 'absent' },
  { by: 'EFI', makeBootDisk: grubEfiArguments, firmware: efiArguments, efi: 'there' },
])('GRUB, by $by', ({ by, makeBootDisk, firmware, efi }) => {
  let folder: string;
  let guest: SriovGuest;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'grub-'));
    const began = performance.now();
    const qemu = await firmware(join(folder, 'variables.fd'));
    guest = await SriovGuest.boot({ ...USUAL_DAY, makeBootDisk, qemu });
    console.log(`GRUB, by ${by}: up after ${((performance.now() - began) / 1000).toFixed(1)} s`);
  });

  afterAll(async () => {
    await guest?.end();
    rmSync(folder, { recursive: true, force: true });
  });

  it('is what started the kernel', async () => {
    expect(await guest.vm.check('cat /proc/cmdline')).toMatch(/^BOOT_IMAGE=\/vmlinuz /);
    const look = '[ -e /sys/firmware/efi ] && echo there || echo absent';
    expect(await guest.vm.check(look)).toBe(efi);
  });

  tellUsualDay(() => guest);
});
