// Tells the stories, one after another: `npm run test:nested -- [--full] [--only=NAME]... [--count=N] [--seed=N]
// [--retries=N]`.
// Ends with the figures that were measured and a line `N passed, N failed`.
import { parseArgs } from 'node:util';
import { tellStory } from './nested-host.ts';
import { STORIES, type Story } from './stories.ts';

const FIGURE = /FIGURE (.*)/;

const { values } = parseArgs({
  options: {
    full: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true, default: [] },
    count: { type: 'string' },
    seed: { type: 'string' },
    // An emulator inside an emulator hangs at times; a story that went well only then says so.
    retries: { type: 'string', default: '1' },
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
for (const story of chosen) {
  const start = performance.now();
  const attempts = await attemptsOf(story);
  if (attempts === undefined) failed++;
  const outcome =
    attempts === undefined
      ? 'FAILED'
      : attempts === 1
        ? 'passed'
        : `passed at attempt ${attempts}:`;
  results.push(`${outcome} ${story.name} (${Math.round((performance.now() - start) / 1000)} s)`);
}
console.log(`\nFigures, on a CPU emulated in software, host and guest on one of them:`);
for (const figure of figures) console.log(`  ${figure}`);
console.log(`\n${results.join('\n')}`);
console.log(`${chosen.length - failed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;

/** How many attempts it took, or undefined. */
async function attemptsOf(story: Story): Promise<number | undefined> {
  const count = Number(values.count ?? (values.full ? story.count.full : story.count.usual));
  for (let attempt = 1; attempt <= 1 + Number(values.retries); attempt++) {
    console.log(`\n== ${story.name}: ${story.title} (seed ${seed}, attempt ${attempt})`);
    try {
      await tellStory(story, { count, seed }, take);
      return attempt;
    } catch (error) {
      console.log(`== ${story.name}: ${error instanceof Error ? error.message : error}`);
    }
  }
  return undefined;
}

function take(text: string): void {
  process.stdout.write(text);
  for (const line of text.split('\n')) {
    const figure = FIGURE.exec(line)?.[1];
    if (figure !== undefined) figures.push(figure);
  }
}
