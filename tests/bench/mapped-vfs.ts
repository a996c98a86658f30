// What mapping VFs over their slots costs in stock QEMU: the time from the end of an enable until all are mapped, with its
// parts; for how long at a time the guest has to do without QEMU meanwhile, beside a bare stop and cont of the same run; and how many
// DMA_MAPs QEMU's functions are told, with and without a virtual IOMMU. QEMU's memory and files for a carrier.
import { type Lab, lab } from '../lab/lab.ts';
import { type Figure, median, rounded } from './figure.ts';
import { type Mapped, PauseGuest, type Used, usedBy } from './pause-guest.ts';
import { ownFolder } from './server-process.ts';

const ROUNDS = 3;
/** A longer standstill is one that a guest may notice. */
const MOST_PAUSED_MILLISECONDS = 20;
/** A QEMU whose one qtest object is taken: the glue has the configuration ports alone, for which the guest must stand still. */
const PORTS_ALONE = ['-chardev', 'null,id=nobody', '-object', 'qtest,id=taken,chardev=nobody'];
/** Those that every function shares an address space in, and one where each has its own. */
const MACHINES = [
  { name: 'plain', hasIommu: false, totalVfs: 40, counts: [1, 7, 20, 40], qemu: [] },
  { name: 'iommu', hasIommu: true, totalVfs: 40, counts: [1, 7, 20, 40], qemu: [] },
  { name: 'ports', hasIommu: false, totalVfs: 40, counts: [1, 7, 40], qemu: PORTS_ALONE },
  { name: 'many', hasIommu: false, totalVfs: 200, counts: [1, 7, 40], qemu: [] },
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
  { name, hasIommu, totalVfs, counts, qemu }: (typeof MACHINES)[number],
): Promise<Figure[]> {
  const most = Math.max(...counts);
  const options = [`--total-vfs=${totalVfs}`, '--vf-memory=mapped', `--mapped-vfs=${most}`];
  const guest = await PauseGuest.boot(paths, ownFolder(folder, `mapped-${name}`), options, {
    hasIommu,
    qemu,
  });
  const isPaused = qemu === PORTS_ALONE;
  try {
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
      if (all.some(({ report }) => report.pauses > 0 !== isPaused)) {
        throw new Error(`the guest of ${name} is to be paused: ${isPaused}; it was not so`);
      }
      figures.push(...ofCount(`mapped-${vfs}-${name}`, all));
      figures.push(waitFigure(`mapped-${vfs}-${name}`, isPaused, all, median(bare)));
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
function ofCount(figure: string, all: readonly Mapped[]): Figure[] {
  const of = (value: (each: Mapped) => number): number => rounded(median(all.map(value)));
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
      ...{ figure: `${figure}-maps`, value: rounded(maps / sessions), unit: 'per session' },
      details: { maps, sessions, mapsOfAVf: rounded(maps / vfs) },
    },
  ];
}

/**
 * How long the guest stood still at most; where it did not have to, the longest command, for whose time it waits if it wants
 * something of QEMU. Adding a function takes QEMU as long as it takes: only a pause has a limit.
 */
function waitFigure(
  figure: string,
  isPaused: boolean,
  all: readonly Mapped[],
  bareMilliseconds: number,
): Figure {
  const of = (value: (each: Mapped) => number): number => rounded(median(all.map(value)));
  const bare = rounded(bareMilliseconds);
  if (!isPaused) {
    const value = of(({ report }) => report.longestCommandMilliseconds);
    return { figure: `${figure}-longest-command`, value, unit: 'ms', details: { bare } };
  }
  const fromStopToCont = of(({ report }) => report.longestPauseMilliseconds);
  return {
    figure: `${figure}-longest-pause`,
    // Of the guest's CPUs, by QEMU's own account: the monitor hears of it later.
    value: of(({ report }) => report.longestStandstillMilliseconds),
    unit: 'ms',
    limit: MOST_PAUSED_MILLISECONDS,
    details: {
      fromStopToCont,
      commands: of(({ report }) => report.mostCommands),
      bare,
      ratio: rounded(fromStopToCont / bareMilliseconds),
    },
  };
}
