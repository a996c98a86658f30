// What mapping VFs over their slots costs in stock QEMU: the time from the end of an enable until all are mapped, with its
// parts; the longest of the guest's pauses, beside a bare stop and cont of the same run; and how many DMA_MAPs QEMU's functions are
// told, with and without a virtual IOMMU. QEMU's memory and files for a carrier.
import { type Lab, lab } from '../lab/lab.ts';
import { type Figure, median, rounded } from './figure.ts';
import { type Mapped, PauseGuest, type Used, usedBy } from './pause-guest.ts';
import { ownFolder } from './server-process.ts';

const ROUNDS = 3;
/** A longer standstill is one that a guest may notice. */
const MOST_PAUSED_MILLISECONDS = 20;
/** Those that every function shares an address space in, and one where each has its own. */
const MACHINES = [
  { name: 'plain', hasIommu: false, totalVfs: 40, counts: [1, 7, 20, 40] },
  { name: 'iommu', hasIommu: true, totalVfs: 40, counts: [1, 7, 20, 40] },
  { name: 'many', hasIommu: false, totalVfs: 200, counts: [1, 7, 40] },
] as const;

/** Figures of laying, and of memory and files. */
export async function measureMappedVfs(folder: string): Promise<Figure[]> {
  const paths = await lab();
  const figures: Figure[] = [];
  for (const machine of MACHINES) {
    figures.push(...(await laying(paths, folder, machine)));
  }
  return figures;
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
