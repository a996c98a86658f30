// A host that takes its time to make VFs, as every real one does: the guest runs on for a while before it is paused, and
// finds all of its VFs in place.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { amountOf } from '../full.ts';
import { Recording } from './recording.ts';
import { SriovGuest } from './sriov-guest.ts';

const HOST_MILLISECONDS = 250;
const ROUNDS = amountOf({ usual: 10, full: 20 });

const recording = new Recording();
let guest: SriovGuest;

beforeAll(async () => {
  guest = await SriovGuest.boot({
    launcher: [
      `--enable-delay=${HOST_MILLISECONDS}`,
      '--log-level=info',
      '--log-format=json',
      ...recording.options,
    ],
  });
  await guest.bindDriver('pci-pf-stub');
});

afterAll(async () => {
  await guest?.end();
  recording.remove();
});

/** How long the guest stood still at each enable, as the glue has it. */
function pauses(): number[] {
  const reports = guest.vm.processOutput.matchAll(/"pauseMilliseconds":([\d.]+)/g);
  return [...reports].map(([, milliseconds]) => Number(milliseconds));
}

it('VFs come and go while the guest waits with the host', async () => {
  for (let round = 1; round <= ROUNDS; round++) {
    const count = 1 + (round % 7);
    await guest.setNumVfs(count);
    await guest.expectVfContents(count);
    await guest.setNumVfs(0);
  }
  expect(pauses()).toHaveLength(ROUNDS);
});

it('the guest stands still for less time than the host takes', () => {
  // A stop that comes late makes it less; only the resume can make it more.
  expect(Math.min(...pauses())).toBeGreaterThan(0);
  expect(Math.min(...pauses())).toBeLessThan(HOST_MILLISECONDS);
});

it('the recording shows a driver that breaks no rule, until one does not wait', async () => {
  recording.expectClean();
  await recording.expectHasteFound(guest);
});

it('neither the kernel nor QEMU had anything to complain of', async () => {
  await guest.expectNoComplaints();
});
