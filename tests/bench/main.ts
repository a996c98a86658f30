// `npm run bench -- [--only=NAME]... [--rounds=N] [--count=N]`: measures what the project promises about speed and size,
// with a baseline in the same run. Prints a line of JSON for each figure as it comes, then a table. Exit code 1 only if something could not be measured:
// a figure over its limit is a finding, and on a busy machine not even that.
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
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

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '9' },
    count: { type: 'string', default: '30000' },
    // One of the names that are told while it runs.
    only: { type: 'string', multiple: true, default: [] },
  },
});
const options = { rounds: Number(values.rounds), count: Number(values.count) };

const folder = mkdtempSync(join(tmpdir(), 'bench-'));
const figures: Figure[] = [];
try {
  await collect('round trip', async () => {
    const programs = buildPrograms(folder);
    if (programs !== undefined) {
      return measureRoundTrip(programs, folder, options);
    }
    process.stderr.write('round trip: skipped, there is no C compiler; install one or set CC\n');
    return [];
  });
  await collect('cost of a trace, and of metrics', async () => {
    const programs = buildPrograms(folder);
    return programs === undefined ? [] : measureOnlookers(programs, folder, options);
  });
  await collect('reading a trace', () => measureTraceReading(folder));
  await collect('NVMe read', () => measureNvmeRead(folder, options));
  await collect('NVMe in a guest', () => measureNvmeGuest(folder));
  await collect('start-up', () => measureStartUp(folder, options));
  await collect('resident memory', () => measureResidentMemory(folder));
  await collect('bystander under a flood', () => measureBystander(folder));
  await collect('hot-plug', () => measureHotPlug(folder, options.rounds));
  await collect('guest pause', () => measureGuestPause(folder, options.rounds));
  await collect('mapped VFs', () => measureMappedVfs(folder));
  await collect('break-even of mapped VFs', () => measureBreakEven(folder));
  await collect('slots in a boot', () => measureSlotBoot(folder));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.stdout.write(
  `\nNode ${process.version}, ${availableParallelism()} CPUs\n${table(figures)}\n`,
);

// One benchmark that cannot run does not take the others with it.
async function collect(name: string, measure: () => Promise<Figure[]>): Promise<void> {
  if (values.only.length > 0 && !values.only.includes(name)) {
    return;
  }
  process.stderr.write(`measuring: ${name}\n`);
  try {
    for (const figure of await measure()) {
      figures.push(figure);
      process.stdout.write(`${jsonLine(figure)}\n`);
    }
  } catch (error) {
    process.stderr.write(`${name}: ${(error as Error).message}\n`);
    process.exitCode = 1;
  }
}
