// A guest with an aarch64 processor, in QEMU's virt machine: it has no configuration ports, so that the glue writes to config
// space as memory. Under --full.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IS_FULL } from '../full.ts';
import { SriovGuest } from './sriov-guest.ts';
import { tellUsualDay, USUAL_DAY } from './usual-day.ts';

describe.runIf(IS_FULL)('aarch64', () => {
  let guest: SriovGuest;

  beforeAll(async () => {
    const began = performance.now();
    guest = await SriovGuest.boot({ ...USUAL_DAY, processor: 'aarch64' });
    console.log(`aarch64: up after ${((performance.now() - began) / 1000).toFixed(1)} s`);
  });

  afterAll(async () => {
    await guest?.end();
  });

  it("is the guest's processor", async () => {
    expect(await guest.vm.check('uname -m')).toBe('aarch64');
  });

  tellUsualDay(() => guest);
});
