// Runs the stories: `npm run test:nested -- [--full] [--only=NAME]`.
import { runStory } from './nested-host.ts';

const name = process.argv[2] ?? 'igb';
await runStory({ name, args: process.argv.slice(3), limitMilliseconds: 300_000 }, (text) =>
  process.stdout.write(text),
);
