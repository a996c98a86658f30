// What mapping VFs over their slots costs in stock QEMU: the time from the end of an enable until all are mapped, with its
// parts; the longest of the guest's pauses, beside a bare stop and cont of the same run; and how many DMA_MAPs QEMU's functions are
// told, with and without a virtual IOMMU. QEMU's memory and files for a slot, and for a carrier; and what a slot adds to the time
// that a guest takes to boot.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Lab, lab } from '../lab/lab.ts';
import { type Figure, median, rounded } from './figure.ts';
import { type Mapped, PauseGuest, type Used, usedBy } from './pause-guest.ts';

const ROUNDS = 3;
/** From and to, with 20 and 200 in the middle. */
const SLOTS = { few: [1, 39], many: [150, 250] } as const;
/** A longer standstill is one that a guest may notice. */
const MOST_PAUSED_MILLISECONDS = 20;
/** Of a slot among many, against one among few. */
const MOST_BOOT_RATIO = 1.3;
/** Those that every function shares an address space in, and one where each has its own. */
const MACHINES = [
  { name: 'plain', hasIommu: false, totalVfs: 40, counts: [1, 7, 20, 40] },
  { name: 'iommu', hasIommu: true, totalVfs: 40, counts: [1, 7, 20, 40] },
  { name: 'many', hasIommu: false, totalVfs: 200, counts: [1, 7, 40] },
] as const;

/** A boot's time in milliseconds, and what QEMU has after it. */
interface Boot extends Used {
  readonly wall: number;
  /** Of launcher, backend and QEMU. */
  readonly cpu: number;
}

/** Figures of laying, of memory and files, and of booting. */
export async function measureMappedVfs(folder: string): Promise<Figure[]> {
  const paths = await lab();
  const figures: Figure[] = [];
  for (const machine of MACHINES) {
    figures.push(...(await laying(paths, folder, machine)));
  }
  return [...figures, ...(await slots(paths, folder))];
}

async function laying(
  paths: Lab,
  folder: string,
  { name, hasIommu, totalVfs, counts }: (typeof MACHINES)[number],
): Promise<Figure[]> {
  const options = [`--total-vfs=${totalVfs}`, '--vf-memory=mapped'];
  const guest = await PauseGuest.boot(paths, ownFolder(folder, `mapped-${name}`), options, {
    hasIommu,
  });
  try {
    const most = Math.max(...counts);
    // The first time much of QEMU and of the glue has never run.
    await guest.enableMapped(most);
    const without = usedBy(guest.qemuPid());
    const figures: Figure[] = [];
    let all: Mapped[] = [];
    for (const vfs of counts) {
      all = [];
      const bare: number[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        all.push(await guest.enableMapped(vfs));
        bare.push((await guest.monitor.pause([])).milliseconds);
      }
      figures.push(...ofCount(`mapped-${vfs}-${name}`, all, median(bare)));
    }
    const per = (value: keyof Used): number =>
      rounded((median(all.map((each) => each[value])) - without[value]) / most);
    figures.push(
      { figure: `carrier-memory-${name}`, value: per('mebibytes'), unit: 'MiB', details: {} },
      { figure: `carrier-files-${name}`, value: per('files'), unit: 'fds', details: {} },
    );
    return figures;
  } finally {
    await guest.end();
  }
}

/** Medians of some rounds with the same number of VFs. */
function ofCount(figure: string, all: readonly Mapped[], bareMilliseconds: number): Figure[] {
  const of = (value: (each: Mapped) => number): number => rounded(median(all.map(value)));
  const longest = of(({ report }) => report.longestPauseMilliseconds);
  const vfs = all[0]!.report.vfs;
  // A carrier is connected to as well.
  const sessions = of((each) => each.sessions) + vfs;
  const maps = of((each) => each.maps);
  return [
    {
      ...{ figure, value: of(({ report }) => report.milliseconds), unit: 'ms' },
      details: {
        adding: of(({ report }) => report.addMilliseconds),
        paused: of(({ report }) => report.pausedMilliseconds),
        pauses: of(({ report }) => report.pauses),
        longestCommand: of(({ report }) => report.longestCommandMilliseconds),
      },
    },
    {
      ...{ figure: `${figure}-longest-pause`, value: longest, unit: 'ms' },
      limit: MOST_PAUSED_MILLISECONDS,
      details: {
        commands: of(({ report }) => report.mostCommands),
        bare: rounded(bareMilliseconds),
        ratio: rounded(longest / bareMilliseconds),
      },
    },
    {
      ...{ figure: `${figure}-maps`, value: rounded(maps / sessions), unit: 'per session' },
      details: { maps, sessions, mapsOfAVf: rounded(maps / vfs) },
    },
  ];
}

/** What a slot costs a guest's boot around two numbers of slots: in CPU time, which a busy machine changes least. */
async function slots(paths: Lab, folder: string): Promise<Figure[]> {
  const boots = new Map<number, Boot>();
  for (const count of [...SLOTS.few, ...SLOTS.many]) {
    const all: Boot[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      all.push(await boot(paths, ownFolder(folder, `slots-${count}-${round}`), count));
    }
    const of = (value: keyof Boot): number => rounded(median(all.map((each) => each[value])));
    boots.set(count, {
      ...{ wall: of('wall'), cpu: of('cpu'), files: of('files'), mebibytes: of('mebibytes') },
    });
  }
  const each = ([from, to]: readonly [number, number], value: keyof Boot): number =>
    (boots.get(to)![value] - boots.get(from)![value]) / (to - from);
  const few = each(SLOTS.few, 'cpu');
  return [
    {
      ...{ figure: 'slot-boot-time', value: rounded(each(SLOTS.many, 'cpu')), unit: 'ms of CPU' },
      limit: rounded(MOST_BOOT_RATIO * few),
      details: { amongFew: rounded(few), boots: Object.fromEntries(boots) },
    },
    ofSlot('slot-memory', each(SLOTS.many, 'mebibytes'), 'MiB'),
    ofSlot('slot-files', each(SLOTS.many, 'files'), 'fds'),
  ];
}

function ofSlot(figure: string, value: number, unit: string): Figure {
  return { figure, value: rounded(value), unit, details: {} };
}

async function boot(paths: Lab, folder: string, totalVfs: number): Promise<Boot> {
  const began = performance.now();
  const options = [`--total-vfs=${totalVfs}`, '--vf-memory=trapped'];
  const guest = await PauseGuest.boot(paths, folder, options);
  const wall = performance.now() - began;
  const booted = { wall, cpu: guest.cpuMilliseconds(), ...usedBy(guest.qemuPid()) };
  await guest.end();
  return booted;
}

function ownFolder(folder: string, name: string): string {
  const own = join(folder, name);
  mkdirSync(own);
  return own;
}
