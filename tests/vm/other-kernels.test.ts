// Guests with other kernels of Debian's than the lab's usual one. Under --full, a boot each.
import { basename } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IS_FULL } from '../full.ts';
import { lab } from '../lab/lab.ts';
import { SriovGuest } from './sriov-guest.ts';
import { tellUsualDay, USUAL_DAY } from './usual-day.ts';

describe.runIf(IS_FULL).each(['bookworm', 'backports'] as const)('the kernel of %s', (kernel) => {
  let version: string;
  let guest: SriovGuest;

  beforeAll(async () => {
    version = basename((await lab(kernel)).modules);
    const began = performance.now();
    guest = await SriovGuest.boot({ ...USUAL_DAY, kernel });
    console.log(`Linux ${version}: up after ${((performance.now() - began) / 1000).toFixed(1)} s`);
  });

  afterAll(async () => {
    await guest?.end();
  });

  it('is the one that runs', async () => {
    expect(await guest.vm.check('uname -r')).toBe(version);
  });

  tellUsualDay(() => guest);
});
