// Tells the stories: `npm run test:nested`; the usage is below.
// The one that measures is told alone, the others two at a time. Ends with the figures and a line `N passed, N failed`,
// with `, N told again` where the emulator spoiled a first telling.
import { availableParallelism } from 'node:os';
import { programOptions, refuse } from '../program-options.ts';
import { tellStory } from './nested-host.ts';
import { STORIES, type Story, VF_MEMORY, type VfMemory } from './stories.ts';
import { closingLine, type Outcome, outcomeOf } from './telling.ts';

const FIGURE = /FIGURE (.*)/;

const USAGE = `usage: npm run test:nested -- [OPTION…]
  --only=NAME       tell this story; may be repeated (default: all)
  --except=NAME     do not tell this one; may be repeated
  --list            print the names of those that would be told
  --full            the long form, each with VFs ${VF_MEMORY.join(' and ')}
  --vf-memory=HOW   ${VF_MEMORY.join(' or ')} (default: the story's own)
  --count=N         how often what a story repeats is done (default: the story's own)
  --seed=N          of what is chosen at random (default: the time)
  --jobs=N          so many at a time; the one that measures is told alone (default: 2, or the CPUs there are)
The stories: ${STORIES.map(({ name }) => name).join(', ')}
`;

const values = programOptions(USAGE, {
  full: { type: 'boolean', default: false },
  list: { type: 'boolean', default: false },
  only: { type: 'string', multiple: true, default: [] },
  except: { type: 'string', multiple: true, default: [] },
  'vf-memory': { type: 'string' },
  count: { type: 'string' },
  seed: { type: 'string' },
  // Each host is busy on one CPU.
  jobs: { type: 'string', default: String(Math.min(2, availableParallelism())) },
});
const seed = Number(values.seed ?? Date.now() % 1_000_000);
for (const option of ['only', 'except'] as const) {
  const unknown = values[option].find((name) => !STORIES.some((story) => story.name === name));
  if (unknown !== undefined) {
    refuse(`--${option}=${unknown}: there is no such story`, USAGE);
  }
}
const memory = values['vf-memory'];
if (memory !== undefined && !VF_MEMORY.some((each) => each === memory)) {
  refuse(`--vf-memory=${memory}: it is one of ${VF_MEMORY.join(', ')}`, USAGE);
}

const figures: string[] = [];
const results: string[] = [];
const outcomes: Outcome[] = [];
const named = STORIES.filter(
  ({ name }) =>
    (values.only.length === 0 || values.only.includes(name)) && !values.except.includes(name),
);
if (values.list) {
  console.log(named.map(({ name }) => name).join('\n'));
  process.exit();
}
const chosen = named.flatMap((story) => modesOf(story).map((vfMemory) => ({ ...story, vfMemory })));
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
console.log(closingLine(outcomes));
process.exitCode = outcomes.includes('failed') ? 1 : 0;

/** How the guest reaches VFs in the tellings of a story. */
function modesOf(story: Story): readonly VfMemory[] {
  if (memory === undefined) {
    return values.full ? VF_MEMORY : [story.vfMemory];
  }
  return VF_MEMORY.filter((each) => each === memory);
}

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
  const amount = values.full ? 'full' : 'usual';
  const count = Number(values.count ?? story.count[amount]);
  const { vfMemory } = story;
  const limit = story.limit[amount] * (vfMemory === 'mapped' ? 2 : 1);
  const write = linesOf(story.name);
  const outcome = await outcomeOf(
    (telling) => {
      write(`== ${story.title} (VFs ${vfMemory}, seed ${seed}, telling ${telling})\n`);
      return tellStory(story, { vfMemory, count, seed, limit }, write);
    },
    (error) =>
      write(`\n== it did not end well: ${error instanceof Error ? error.message : error}\n`),
  );
  outcomes.push(outcome);
  results.push(`${story.name} with VFs ${vfMemory} ${outcome} (${secondsSince(began)} s)`);
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
