// What a slot adds to the time that a guest takes to boot, where there are few and where there are many: from the launcher's
// start to the guest's shell, and of that QEMU's start, until the guest runs, and the guest's own way. Boots in turns, so
// that what else the machine does meets all. And QEMU's memory and files for a slot.
// QEMU's start alone is not in proportion: without any backend, `nvme` functions behind a root port took QEMU 11.1 0.1 to 0.4 ms
// each among 20, and 0.5 to 1.0 among 200.
import { type Lab, lab } from '../lab/lab.ts';
import { type Figure, median, rounded } from './figure.ts';
import { type BootTimes, PauseGuest, type Used, usedBy } from './pause-guest.ts';
import { ownFolder } from './server-process.ts';

const ROUNDS = 3;
/** A backend has one VF at least. */
const COUNTS = { base: 1, few: 20, many: 200 } as const;
/** Of a slot among many, against one among few. */
const MOST_RATIO = 1.3;

/** `all`: from the launcher's start to the guest's shell, in milliseconds; `allCpu`: of the CPU. */
type Boot = BootTimes & Used & { readonly all: number; readonly allCpu: number };

/** Figures slot-boot-time, its parts slot-start-time and slot-guest-time, slot-memory and slot-files. */
export async function measureSlotBoot(folder: string): Promise<Figure[]> {
  const paths = await lab();
  const boots = new Map<number, Boot[]>(Object.values(COUNTS).map((count) => [count, []]));
  for (let round = 0; round < ROUNDS; round++) {
    for (const [count, all] of boots) {
      all.push(await boot(paths, ownFolder(folder, `slots-${count}-${round}`), count));
    }
  }
  const of = (count: number, value: keyof Boot): number =>
    median(boots.get(count)!.map((each) => each[value]));
  const ofSlot = (count: number, value: keyof Boot): number =>
    rounded((of(count, value) - of(COUNTS.base, value)) / (count - COUNTS.base));
  const time = (figure: string, cpu: keyof Boot, wall: keyof Boot): Figure => ({
    ...{ figure, value: ofSlot(COUNTS.many, cpu), unit: 'ms of CPU' },
    details: {
      amongFew: ofSlot(COUNTS.few, cpu),
      wall: ofSlot(COUNTS.many, wall),
      wallAmongFew: ofSlot(COUNTS.few, wall),
      boots: Object.fromEntries(
        [...boots.keys()].map((count) => [count, rounded(of(count, wall))]),
      ),
    },
  });
  return [
    {
      ...time('slot-boot-time', 'allCpu', 'all'),
      limit: rounded(MOST_RATIO * ofSlot(COUNTS.few, 'allCpu')),
    },
    time('slot-start-time', 'startCpu', 'start'),
    time('slot-guest-time', 'guestCpu', 'guest'),
    { figure: 'slot-memory', value: ofSlot(COUNTS.many, 'mebibytes'), unit: 'MiB', details: {} },
    { figure: 'slot-files', value: ofSlot(COUNTS.many, 'files'), unit: 'fds', details: {} },
  ];
}

async function boot(paths: Lab, folder: string, totalVfs: number): Promise<Boot> {
  const options = [`--total-vfs=${totalVfs}`, '--vf-memory=trapped'];
  const guest = await PauseGuest.boot(paths, folder, options);
  const { start, startCpu, guest: own, guestCpu } = guest.bootTimes;
  const booted = {
    ...guest.bootTimes,
    all: start + own,
    allCpu: startCpu + guestCpu,
    ...usedBy(guest.qemuPid()),
  };
  await guest.end();
  return booted;
}
