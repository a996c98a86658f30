// Many VFs: behind a root port, where QEMU shows a guest all of them by ARI, and side by side on the root bus. Interrupts,
// DMA and resets of VFs at device numbers above 0, with a virtual IOMMU, which tells functions apart by requester ID.
import { afterEach, describe, expect, it } from 'vitest';
import { amountOf } from '../full.ts';
import { Recording } from './recording.ts';
import { SriovGuest, type SriovGuestOptions } from './sriov-guest.ts';
import { expectToWork } from './usual-day.ts';

/** With device numbers from 0 to 5 behind the port. */
const MANY = 40;
/** The first and the last at each of the first two device numbers, and the last of all. */
const LOOKED_AT = [0, 6, 7, 8, 20, 39];
const MOST_ON_PCIE_0 = 119;
const HUNDREDS = 200;
/** For as many rounds as the long form has. */
const LONG_MILLISECONDS = 900_000;

let guest: SriovGuest;

afterEach(async () => {
  await guest?.end();
});

async function boot(options: SriovGuestOptions): Promise<void> {
  guest = await SriovGuest.boot(options);
  await guest.bindDriver('pci-pf-stub');
}

async function enable(count: number): Promise<void> {
  await guest.setNumVfs(count);
  expect(await guest.virtfns()).toEqual(Array.from({ length: count }, (_, vf) => guest.vf(vf)));
  await guest.expectVfContents(count);
}

describe('behind a root port', () => {
  // Without ARI Linux looks for VFs all the same: it takes their routing IDs from the PF.
  it.each([
    ['a guest with ARI, whose VFs are mapped,', ['mapped', `--mapped-vfs=${MANY}`], []],
    ['a guest that was told to leave ARI alone', ['trapped'], ['pci=noari']],
  ])(
    '%s has interrupts, DMA and resets of VFs above the seventh',
    async (_, [how, ...more], append) => {
      const launcher = [`--total-vfs=${MANY}`, `--vf-memory=${how}`, ...more];
      await boot({ launcher, iommu: true, append });
      await enable(MANY);
      for (const vfIndex of LOOKED_AT) {
        await expectToWork(guest, vfIndex);
      }
      await guest.vm.check(`echo 1 > ${guest.sysfs}/reset`);
      await guest.expectVfContents(MANY);
      for (let round = 0; round < amountOf({ usual: 2, full: 8 }); round++) {
        await guest.setNumVfs(0);
        expect(await guest.virtfns()).toEqual([]);
        await enable(MANY);
      }
      await guest.expectNoComplaints();
      expect(guest.vm.processOutput).toContain('QEMU warns of VFs at device numbers above 0');
    },
  );

  it(
    `${HUNDREDS} VFs come and go`,
    async () => {
      await boot({ launcher: [`--total-vfs=${HUNDREDS}`], memoryMegabytes: 512 });
      for (let round = 0; round < amountOf({ usual: 2, full: 10 }); round++) {
        await enable(HUNDREDS);
        await guest.setNumVfs(0);
        expect(await guest.virtfns()).toEqual([]);
      }
      await guest.expectNoComplaints();
    },
    LONG_MILLISECONDS,
  );
});

describe('on the root bus', () => {
  const recording = new Recording();
  afterEach(() => recording.remove());

  it(`${MOST_ON_PCIE_0} VFs come and go beside a PF that is an integrated endpoint`, async () => {
    await boot({
      launcher: ['--topology=pcie.0', `--total-vfs=${MOST_ON_PCIE_0}`, ...recording.options],
      pf: '0000:00:10.0',
    });
    await enable(MOST_ON_PCIE_0);
    await guest.setNumVfs(0);
    expect(await guest.virtfns()).toEqual([]);
    await enable(9);
    const found = await guest.vm.check('dmesg | grep "pci 0000:00:10.0: \\[1d0f:0053\\]"');
    expect(found).toContain('PCIe Root Complex Integrated Endpoint');
    recording.expectClean();
    await guest.setNumVfs(0);
    await recording.expectHasteFound(guest, 9);
    await guest.expectNoComplaints();
  });
});
