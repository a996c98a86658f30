// Up to how many VFs mapping them is better than leaving them trapped (the rule is in vmm-glue/README.md): what mapping one
// more VF costs, in accesses that it spares, and how much longer the guest waits for its VFs. Two guests take turns, one with
// VFs mapped and one with VFs trapped; with and without a virtual IOMMU.
import { lab } from '../lab/lab.ts';
import { type Figure, median, rounded } from './figure.ts';
import { type Mapped, PauseGuest, type Round } from './pause-guest.ts';
import { ownFolder } from './server-process.ts';

const COUNTS = [7, 20, 40, 60, 80] as const;
const TOTAL_VFS = 80;
const ROUNDS = 3;
const READS = 4_000;
/** A driver that sends a few hundred packets makes more. */
const MOST_ACCESSES = 1_000;
/** Times as long as with VFs trapped. */
const MOST_WAIT_RATIO = 2;

/** Figures break-even-accesses-N, break-even-wait-N for N VFs, plain and with an IOMMU. */
export async function measureBreakEven(folder: string): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const hasIommu of [false, true]) {
    figures.push(...(await ofMachine(folder, hasIommu ? 'iommu' : 'plain', hasIommu)));
  }
  return figures;
}

async function ofMachine(folder: string, name: string, hasIommu: boolean): Promise<Figure[]> {
  const paths = await lab();
  const boot = (how: string): Promise<PauseGuest> => {
    const options = [`--total-vfs=${TOTAL_VFS}`, `--vf-memory=${how}`, `--mapped-vfs=${TOTAL_VFS}`];
    return PauseGuest.boot(paths, ownFolder(folder, `even-${name}-${how}`), options, { hasIommu });
  };
  const trapped = await boot('trapped');
  try {
    const mapped = await boot('mapped');
    try {
      return await compare(name, trapped, mapped);
    } finally {
      await mapped.end();
    }
  } finally {
    await trapped.end();
  }
}

async function compare(name: string, trapped: PauseGuest, mapped: PauseGuest): Promise<Figure[]> {
  // The first time much of QEMU and of the glue has never run.
  await trapped.enableTrapped(TOTAL_VFS);
  await mapped.enableMapped(TOTAL_VFS);
  const readCost = await trapped.readCost(READS);
  const figures: Figure[] = [];
  let before = { vfs: 0, price: 0 };
  for (const vfs of COUNTS) {
    const rounds: [Round, Mapped][] = [];
    for (let round = 0; round < ROUNDS; round++) {
      rounds.push([await trapped.enableTrapped(vfs), await mapped.enableMapped(vfs)]);
    }
    const of = (value: (trapped: Round, mapped: Mapped) => number): number =>
      median(rounds.map(([one, other]) => value(one, other)));
    const price = of((one, other) => other.cpu - one.cpu);
    const ofOneMore = (price - before.price) / (vfs - before.vfs);
    before = { vfs, price };
    figures.push(
      {
        figure: `break-even-accesses-${vfs}-${name}`,
        value: rounded(ofOneMore / readCost),
        unit: 'accesses per VF',
        limit: MOST_ACCESSES,
        details: {
          priceOfOneMore: rounded(ofOneMore),
          price: rounded(price),
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
