// `npm run bench`: measures what the project promises about speed and size,
// with a baseline in the same run. Prints a line of JSON for each figure as it comes, then a table. Exit code 1 only if something could not be measured:
// a figure over its limit is a finding, and on a busy machine not even that.
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { programOptions, refuse } from '../program-options.ts';
import { measureBreakEven } from './break-even.ts';
import { measureBystander } from './bystander.ts';
import { buildPrograms } from './c-programs.ts';
import { type Figure, jsonLine, table } from './figure.ts';
import { measureGuestPause } from './guest-pause.ts';
import { measureHotPlug } from './hot-plug.ts';
import { measureMappedVfs } from './mapped-vfs.ts';
import { measureNvmeGuest } from './nvme-guest.ts';
import { measureNvmeRead } from './nvme-read.ts';
import { measureOnlookers, measureTraceReading } from './onlookers.ts';
import { measureResidentMemory } from './resident-memory.ts';
import { measureRoundTrip } from './round-trip.ts';
import { measureSlotBoot } from './slot-boot.ts';
import { measureStartUp } from './start-up.ts';

interface Amounts {
  readonly rounds: number;
  readonly count: number;
}

/** By the names that `--only` takes; `folder` is for their files. */
const BENCHMARKS: Readonly<
  Record<string, (folder: string, amounts: Amounts) => Promise<Figure[]>>
> = {
  'round trip': async (folder, amounts) => {
    const programs = buildPrograms(folder);
    if (programs !== undefined) {
      return measureRoundTrip(programs, folder, amounts);
    }
    process.stderr.write('round trip: skipped, there is no C compiler; install one or set CC\n');
    return [];
  },
  'cost of a trace, and of metrics': async (folder, amounts) => {
    const programs = buildPrograms(folder);
    return programs === undefined ? [] : measureOnlookers(programs, folder, amounts);
  },
  'reading a trace': measureTraceReading,
  'NVMe read': measureNvmeRead,
  'NVMe in a guest': measureNvmeGuest,
  'start-up': measureStartUp,
  'resident memory': measureResidentMemory,
  'bystander under a flood': measureBystander,
  'hot-plug': (folder, { rounds }) => measureHotPlug(folder, rounds),
  'guest pause': (folder, { rounds }) => measureGuestPause(folder, rounds),
  'mapped VFs': measureMappedVfs,
  'break-even of mapped VFs': measureBreakEven,
  'slots in a boot': measureSlotBoot,
};

const USAGE = `usage: npm run bench -- [OPTION…]
  --only=NAME   measure this; may be repeated (default: all)
  --rounds=N    of what is measured in rounds (default: 9)
  --count=N     of what is measured by many messages (default: 30000)
What there is: ${Object.keys(BENCHMARKS).join('; ')}
`;

const values = programOptions(USAGE, {
  rounds: { type: 'string', default: '9' },
  count: { type: 'string', default: '30000' },
  only: { type: 'string', multiple: true, default: [] },
});
const unknown = values.only.find((name) => !Object.hasOwn(BENCHMARKS, name));
if (unknown !== undefined) {
  refuse(`--only=${unknown}: there is no such benchmark`, USAGE);
}
const amounts = { rounds: Number(values.rounds), count: Number(values.count) };
const chosen = values.only.length > 0 ? new Set(values.only) : Object.keys(BENCHMARKS);

const folder = mkdtempSync(join(tmpdir(), 'bench-'));
const figures: Figure[] = [];
try {
  for (const name of chosen) {
    await collect(name);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.stdout.write(
  `\nNode ${process.version}, ${availableParallelism()} CPUs\n${table(figures)}\n`,
);

// One benchmark that cannot run does not take the others with it.
async function collect(name: string): Promise<void> {
  process.stderr.write(`measuring: ${name}\n`);
  try {
    for (const figure of await BENCHMARKS[name]!(folder, amounts)) {
      figures.push(figure);
      process.stdout.write(`${jsonLine(figure)}\n`);
    }
  } catch (error) {
    process.stderr.write(`${name}: ${(error as Error).message}\n`);
    process.exitCode = 1;
  }
}
