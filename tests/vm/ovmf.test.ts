// A guest that OVMF has booted, and suspend to RAM, which QEMU's own firmware does not do; under --full, with VFs trapped as well.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { QmpClient, type QmpEvent } from '../../vmm-glue/qemu/qmp.ts';
import { amountOf, IS_FULL } from '../full.ts';
import { efiArguments } from '../lab/firmware.ts';
import { BY_A_GUEST } from '../patience.ts';
import { SriovGuest } from './sriov-guest.ts';
import { enableAll, expectToWork, tellUsualDay, USUAL_DAY, VFS } from './usual-day.ts';
import { EITHER_MEMORY, expectMemory, expectNoHarmByLoss } from './vf-memory.ts';

/** VFs come back while the guest sets its ports up: sooner or later than those that carriers go on. */
const S3_ROUNDS = amountOf({ usual: 1, full: 5 });
const FORMS = EITHER_MEMORY.filter(({ mapped }) => IS_FULL || mapped > 0);

describe.each(FORMS)('OVMF, VFs $vfMemory', ({ vfMemory, mapped }) => {
  let folder: string;
  let socketPath: string;
  let guest: SriovGuest;
  let qmp: QmpClient;
  let events: QmpEvent[] = [];

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ovmf-'));
    socketPath = join(folder, 'pf.sock');
    const qmpPath = join(folder, 'qmp.sock');
    const firmware = await efiArguments(join(folder, 'variables.fd'));
    const began = performance.now();
    guest = await SriovGuest.boot({
      ...USUAL_DAY,
      launcher: [...USUAL_DAY.launcher, `--vf-memory=${vfMemory}`, `--socket-path=${socketPath}`],
      qemu: [...firmware, '-qmp', `unix:${qmpPath},server=on,wait=off`],
    });
    console.log(`OVMF: up after ${((performance.now() - began) / 1000).toFixed(1)} s`);
    qmp = await QmpClient.connect(qmpPath, { onEvent: (event) => events.push(event) });
  });

  afterAll(async () => {
    qmp?.close();
    await guest?.end();
    rmSync(folder, { recursive: true, force: true });
  });

  /** Has the guest suspend itself to RAM, wakes it, and waits until it runs commands again. */
  async function suspendAndWake(): Promise<void> {
    events = [];
    const suspended = guest.vm.check(
      'echo deep > /sys/power/mem_sleep && echo mem > /sys/power/state',
    );
    await expect.poll(() => events.map(({ event }) => event), BY_A_GUEST).toContain('SUSPEND');
    await qmp.execute('system_wakeup');
    await suspended;
  }

  const expectItsMemory = (): Promise<void> => expectMemory(guest, socketPath, mapped);

  it('is what the guest was booted by', async () => {
    expect(await guest.vm.check('ls /sys/firmware/efi')).toContain('systab');
  });

  tellUsualDay(() => guest, expectItsMemory);

  it.runIf(mapped > 0)('VFs whose mapped memory is lost are right all the same', async () => {
    await expectNoHarmByLoss(guest, socketPath);
  });

  it('S3 without VFs leaves a PF whose VFs can be enabled', async () => {
    await guest.setNumVfs(0);
    await suspendAndWake();
    await enableAll(guest);
    await expectItsMemory();
    await expectToWork(guest, 0);
  });

  it('S3 with VFs enabled, again and again: they are there afterwards, and work', async () => {
    for (let round = 0; round < S3_ROUNDS; round++) {
      await suspendAndWake();
      await guest.expectVfContents(VFS);
      await expectItsMemory();
    }
    await expectToWork(guest, VFS - 1);
    await guest.setNumVfs(0);
    await enableAll(guest);
    await expectItsMemory();
  });

  it('neither the kernel nor QEMU had anything to complain of, asleep and awake', async () => {
    await guest.expectNoComplaints();
  });
});
