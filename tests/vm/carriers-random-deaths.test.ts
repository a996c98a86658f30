// Backend, QEMU and glue are killed at random points of a VF's life with its memory mapped. Under --full; SEED=N kills at the same
// points again.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IS_FULL } from '../full.ts';
import { randomNumbers } from '../nested/inside/story.ts';
import { BY_A_GUEST } from '../patience.ts';
import { MappedParts, VFS } from './mapped-parts.ts';
import { Bar } from './sriov-guest.ts';

const POINTS_OF_EACH = 30;
const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000);

const parts = new MappedParts('random-deaths');

/** What the guest begins, and for how many milliseconds it goes on at most until somebody is killed. */
const MOMENTS = [
  { name: 'VFs begin to be enabled', window: 1_500, begin: () => parts.beginToWrite(VFS) },
  { name: "a VF's memory begins to be read", window: 300, begin: readMapped },
  {
    name: 'VFs begin to be disabled',
    window: 500,
    begin: async () => {
      await parts.enableMapped();
      await parts.beginToWrite(0);
    },
  },
] as const;
type Moment = (typeof MOMENTS)[number];

async function readMapped(): Promise<void> {
  const { guest } = parts;
  await parts.enableMapped();
  const read = `pci-function time ${guest.vf(1)} ${Bar.memory} 10000000`;
  await guest.vm.check(`(${read}) < /dev/null > /dev/null 2>&1 &`);
}

const VICTIMS: Readonly<Record<string, () => Promise<void>>> = {
  glue: async () => {
    const { guest } = parts;
    await parts.glue.kill('SIGKILL');
    await parts.attachGlue();
    // What was going on may have failed, as a whole; a write that still is has the next one wait.
    await guest.vm.check(`killall pci-function 2> /dev/null; echo 0 > ${guest.sysfs}/sriov_numvfs`);
    expect(await guest.virtfns()).toEqual([]);
    // VFs that QEMU still had are tried again at intervals.
    await expect.poll(() => parts.phase(), BY_A_GUEST).toBe('disabled');
  },
  QEMU: async () => {
    await parts.killQemu();
    await expect.poll(() => parts.phase(), BY_A_GUEST).toBe('disabled');
    await parts.start();
  },
  backend: async () => {
    await parts.killBackend();
    await parts.startBackend();
    await parts.start();
  },
};

/** The same for the same seed. */
function pointsOf(victim: number): { readonly moment: Moment; readonly delay: number }[] {
  const random = randomNumbers(SEED + victim);
  return Array.from({ length: POINTS_OF_EACH }, () => {
    const moment = MOMENTS[random(MOMENTS.length)]!;
    return { moment, delay: random(moment.window) };
  });
}

describe.runIf(IS_FULL)(`deaths at random points, SEED=${SEED}`, () => {
  beforeAll(async () => {
    await parts.startBackend();
    await parts.start();
  });

  afterAll(async () => {
    await parts.end();
  });

  for (const [index, [victim, killAndGoOn]] of Object.entries(VICTIMS).entries()) {
    for (const { moment, delay } of pointsOf(index)) {
      it(`${victim} is killed ${delay} ms after ${moment.name}`, async () => {
        await moment.begin();
        await sleep(delay);
        await killAndGoOn();
        expect(await parts.guest.virtfns()).toEqual([]);
        await parts.enableMapped();
        await parts.guest.setNumVfs(0);
        await parts.guest.expectNoComplaints();
      });
    }
  }
});
