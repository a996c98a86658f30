// Runs one story inside the virtual host: `main.js NAME [--count=N] [--seed=N]`. Its status is 0 when the story went well,
// EMULATOR_FAULT_STATUS when the emulator is to blame.
import { parseArgs } from 'node:util';
import { deaths } from './deaths.ts';
import { developerDay } from './developer-day.ts';
import { shell } from './host.ts';
import { igb } from './igb.ts';
import { misbehaviour } from './misbehaviour.ts';
import { nvme } from './nvme.ts';
import { EMULATOR_FAULT_STATUS, EmulatorFault, type StoryOptions, tell } from './story.ts';
import { twoPfs } from './two-pfs.ts';

const STORIES: Readonly<Record<string, (options: StoryOptions) => Promise<void>>> = {
  igb,
  nvme,
  'developer-day': developerDay,
  deaths,
  misbehaviour,
  'two-pfs': twoPfs,
};

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { count: { type: 'string', default: '3' }, seed: { type: 'string', default: '1' } },
});
try {
  await STORIES[positionals[0] ?? '']!({ count: Number(values.count), seed: Number(values.seed) });
} catch (error) {
  tell(`FAILED ${error instanceof Error ? error.stack : error}`);
  tell(`the host's kernel log ends with:\n${shell('dmesg | tail -n 40')}`);
  process.exitCode = error instanceof EmulatorFault ? EMULATOR_FAULT_STATUS : 1;
}
process.exit();
