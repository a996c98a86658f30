// Up to how many VFs mapping them is better than leaving them trapped (the rule is in vmm-glue/README.md): what mapping a VF
// costs, in accesses that it spares, and how much longer the guest waits for its VFs. Two guests take turns, one with
// VFs mapped and one with VFs trapped; with and without a virtual IOMMU, and beside many slots that sleep.
import { MOST_MAPPED_VFS } from '../../vmm-glue/qemu/topology.ts';
import { lab } from '../lab/lab.ts';
import { type Figure, median, rounded } from './figure.ts';
import { type Mapped, PauseGuest, type Round } from './pause-guest.ts';
import { ownFolder } from './server-process.ts';

const MACHINES = [
  { name: 'plain', hasIommu: false, totalVfs: 60, counts: [7, MOST_MAPPED_VFS, 40, 60] },
  { name: 'iommu', hasIommu: true, totalVfs: 60, counts: [7, MOST_MAPPED_VFS, 40, 60] },
  { name: 'many', hasIommu: false, totalVfs: 200, counts: [7, MOST_MAPPED_VFS, 40] },
] as const;
type Machine = (typeof MACHINES)[number];
const ROUNDS = 3;
const READS = 4_000;
/** Times as long as with VFs trapped. */
const MOST_WAIT_RATIO = 2;

/** Figures break-even-accesses-N and break-even-wait-N for N VFs of each machine. */
export async function measureBreakEven(folder: string): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const machine of MACHINES) {
    figures.push(...(await ofMachine(folder, machine)));
  }
  return figures;
}

async function ofMachine(folder: string, machine: Machine): Promise<Figure[]> {
  const { name, hasIommu, totalVfs } = machine;
  const paths = await lab();
  const boot = (how: string): Promise<PauseGuest> => {
    const options = [`--total-vfs=${totalVfs}`, `--vf-memory=${how}`, `--mapped-vfs=${totalVfs}`];
    return PauseGuest.boot(paths, ownFolder(folder, `even-${name}-${how}`), options, { hasIommu });
  };
  const trapped = await boot('trapped');
  try {
    const mapped = await boot('mapped');
    try {
      return await compare(machine, trapped, mapped);
    } finally {
      await mapped.end();
    }
  } finally {
    await trapped.end();
  }
}

async function compare(
  { name, counts }: Machine,
  trapped: PauseGuest,
  mapped: PauseGuest,
): Promise<Figure[]> {
  // The first time much of QEMU and of the glue has never run.
  await trapped.enableTrapped(Math.max(...counts));
  await mapped.enableMapped(Math.max(...counts));
  const readCost = await trapped.readCost(READS);
  const figures: Figure[] = [];
  for (const vfs of counts) {
    const rounds: [Round, Mapped][] = [];
    for (let round = 0; round < ROUNDS; round++) {
      rounds.push([await trapped.enableTrapped(vfs), await mapped.enableMapped(vfs)]);
    }
    const of = (value: (trapped: Round, mapped: Mapped) => number): number =>
      median(rounds.map(([one, other]) => value(one, other)));
    const priceOfVf = of((one, other) => other.cpu - one.cpu) / vfs;
    figures.push(
      {
        figure: `break-even-accesses-${vfs}-${name}`,
        value: rounded(priceOfVf / readCost),
        unit: 'accesses per VF',
        details: {
          priceOfVf: rounded(priceOfVf),
          trappedAccess: rounded(readCost),
          maps: of((_, { maps }) => maps),
        },
      },
      {
        figure: `break-even-wait-${vfs}-${name}`,
        value: rounded(of((one, other) => other.enable / one.enable)),
        unit: 'x',
        limit: MOST_WAIT_RATIO,
        details: {
          trapped: rounded(of((one) => one.enable)),
          mapped: rounded(of((_, other) => other.enable)),
          disableTrapped: rounded(of((one) => one.disable)),
          disableMapped: rounded(of((_, other) => other.disable)),
          untilAllMapped: rounded(of((_, { report }) => report.milliseconds)),
          paused: rounded(of((_, { report }) => report.pausedMilliseconds)),
          longestCommand: rounded(of((_, { report }) => report.longestCommandMilliseconds)),
        },
      },
    );
  }
  return figures;
}
