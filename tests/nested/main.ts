// Tells the stories: `npm run test:nested -- [--full] [--only=NAME]... [--count=N] [--seed=N] [--jobs=N] [--retries=N]`.
// The one that measures is told alone, the others two at a time. Ends with the figures and a line `N passed, N failed`.
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { EmulatorFault } from './inside/story.ts';
import { tellStory } from './nested-host.ts';
import { STORIES, type Story } from './stories.ts';

const FIGURE = /FIGURE (.*)/;

const { values } = parseArgs({
  options: {
    full: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true, default: [] },
    count: { type: 'string' },
    seed: { type: 'string' },
    // Each host is busy on one CPU.
    jobs: { type: 'string', default: String(Math.min(2, availableParallelism())) },
    // For stories that the emulator spoiled (see README.md), and for no others.
    retries: { type: 'string', default: '3' },
  },
});
const seed = Number(values.seed ?? Date.now() % 1_000_000);
const unknown = values.only.find((name) => !STORIES.some((story) => story.name === name));
if (unknown !== undefined) {
  console.error(`--only=${unknown}: the stories are ${STORIES.map(({ name }) => name).join(', ')}`);
  process.exit(2);
}

const figures: string[] = [];
const results: string[] = [];
let failed = 0;
const chosen = STORIES.filter(({ name }) => values.only.length === 0 || values.only.includes(name));
const start = performance.now();
await tellAll(chosen.filter(({ measures }) => measures === true));
await tellAll(
  chosen.filter(({ measures }) => measures !== true),
  Number(values.jobs),
);
if (figures.length > 0) {
  console.log('\nFigures, with host and guest on one CPU that is emulated in software:');
  for (const figure of figures) {
    console.log(`  ${figure}`);
  }
}
console.log(`\n${results.join('\n')}\nin ${secondsSince(start)} s`);
console.log(`${chosen.length - failed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;

async function tellAll(stories: readonly Story[], jobs = 1): Promise<void> {
  const waiting = [...stories];
  const lanes = Array.from({ length: jobs }, async () => {
    for (let story = waiting.shift(); story !== undefined; story = waiting.shift()) {
      await tell(story);
    }
  });
  await Promise.all(lanes);
}

async function tell(story: Story): Promise<void> {
  const began = performance.now();
  const attempts = await attemptsOf(story);
  if (attempts === undefined) {
    failed++;
  }
  const outcome = attempts === undefined ? 'FAILED' : 'passed';
  const note = (attempts ?? 1) > 1 ? `, at attempt ${attempts}` : '';
  results.push(`${outcome} ${story.name} (${secondsSince(began)} s${note})`);
}

/** How many attempts it took, or undefined. */
async function attemptsOf(story: Story): Promise<number | undefined> {
  const amount = values.full ? 'full' : 'usual';
  const count = Number(values.count ?? story.count[amount]);
  const limit = story.limit[amount];
  const write = linesOf(story.name);
  for (let attempt = 1; attempt <= 1 + Number(values.retries); attempt++) {
    write(`== ${story.title} (seed ${seed}, attempt ${attempt})\n`);
    try {
      await tellStory(story, { count, seed, limit }, write);
      return attempt;
    } catch (error) {
      write(`\n== it did not end well: ${error instanceof Error ? error.message : error}\n`);
      if (!(error instanceof EmulatorFault)) {
        return undefined;
      }
    }
  }
  return undefined;
}

/** Prints whole lines, each with the story's name; notes the figures among them. */
function linesOf(name: string): (text: string) => void {
  let rest = '';
  return (text) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      console.log(`${name.padEnd(13)}| ${line}`);
      const figure = FIGURE.exec(line)?.[1];
      if (figure !== undefined) {
        figures.push(figure);
      }
    }
  };
}

function secondsSince(time: number): number {
  return Math.round((performance.now() - time) / 1000);
}
