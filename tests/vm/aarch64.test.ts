// A guest with an aarch64 processor, in QEMU's virt machine: it has no configuration ports, so that the glue writes to config
// space as memory, and carriers' ports are on the root bus. Under --full.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IS_FULL } from '../full.ts';
import { SriovGuest } from './sriov-guest.ts';
import { tellUsualDay, USUAL_DAY, VFS } from './usual-day.ts';
import { EITHER_MEMORY, expectMemory, expectNoHarmByLoss } from './vf-memory.ts';

describe.runIf(IS_FULL).each(EITHER_MEMORY)('aarch64, VFs $vfMemory', ({ vfMemory, mapped }) => {
  let folder: string;
  let socketPath: string;
  let guest: SriovGuest;
  /** Before the first enable. */
  let devices: string[];

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'aarch64-'));
    socketPath = join(folder, 'pf.sock');
    const began = performance.now();
    guest = await SriovGuest.boot({
      ...USUAL_DAY,
      launcher: [...USUAL_DAY.launcher, `--vf-memory=${vfMemory}`, `--socket-path=${socketPath}`],
      processor: 'aarch64',
    });
    devices = await listDevices();
    console.log(`aarch64: up after ${((performance.now() - began) / 1000).toFixed(1)} s`);
  });

  async function listDevices(): Promise<string[]> {
    return (await guest.vm.check('ls /sys/bus/pci/devices')).split('\n');
  }

  afterAll(async () => {
    await guest?.end();
    rmSync(folder, { recursive: true, force: true });
  });

  it("is the guest's processor", async () => {
    expect(await guest.vm.check('uname -m')).toBe('aarch64');
  });

  tellUsualDay(
    () => guest,
    () => expectMemory(guest, socketPath, mapped),
  );

  it.runIf(mapped > 0)('VFs whose mapped memory is lost are right all the same', async () => {
    await expectNoHarmByLoss(guest, socketPath);
  });

  it('no device was seen but PF, VFs and what was there at the start, also after a rescan', async () => {
    await guest.vm.check('echo 1 > /sys/bus/pci/rescan');
    const vfs = Array.from({ length: VFS }, (_, vf) => guest.vf(vf));
    expect((await listDevices()).filter((each) => !vfs.includes(each))).toEqual(devices);
    expect(await guest.vm.check('dmesg | grep -c "pciehp.*Slot(.*):" || true')).toBe('0');
  });
});
