// `node dist/packaging/generate/main.js FOLDER`: writes man pages and completion scripts below a folder, laid out as below
// /usr/share.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { COMMANDS, PROGRAM } from '../../commands.ts';
import { bashCompletion, zshCompletion } from './completion.ts';
import { describeCommand } from './describe-command.ts';
import { commandPage, programPage, type Release } from './man-page.ts';

const folder = process.argv[2];
if (folder === undefined || folder.startsWith('-') || process.argv.length > 3) {
  process.stderr.write('usage: main.js FOLDER\n');
  process.exit(2);
}
const root = new URL('../../../', import.meta.url);
const { version, description } = JSON.parse(
  readFileSync(new URL('package.json', root), 'utf8'),
) as { version: string; description: string };

const commands = await Promise.all(
  Object.values(COMMANDS).map(async ({ load, summary }) => describeCommand(await load(), summary)),
);
// The same sources give the same pages.
const seconds = Number(process.env.SOURCE_DATE_EPOCH ?? Date.now() / 1000);
const date = new Date(seconds * 1000).toISOString().slice(0, 10);
const release: Release = { program: PROGRAM, version, date };

write(`man/man1/${PROGRAM}.1`, programPage(release, description, commands));
for (const command of commands) {
  write(`man/man1/${PROGRAM}-${command.name}.1`, commandPage(release, command));
}
write(`bash-completion/completions/${PROGRAM}`, bashCompletion(PROGRAM, commands));
write(`zsh/vendor-completions/_${PROGRAM}`, zshCompletion(PROGRAM, commands));

function write(path: string, text: string): void {
  const file = join(folder!, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}
