// The commands that the documents have people copy: each is a subcommand that there is, with options that it has.

import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { COMMANDS, PROGRAM } from '../../commands.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const FOLDERS = ['backend', 'examples', 'packaging', 'protocol', 'tests', 'vmm-glue'];

const documents = [
  ...readdirSync(ROOT),
  ...FOLDERS.flatMap((folder) =>
    readdirSync(ROOT + folder, { encoding: 'utf8', recursive: true }).map(
      (path) => `${folder}/${path}`,
    ),
  ),
].filter((path) => path.endsWith('.md'));

/** Each command line of ours in what is for a shell, with its continuation lines and without its comment. */
const commands = documents.flatMap((document) => {
  const blocks = readFileSync(ROOT + document, 'utf8').matchAll(/^ *```sh\n(.*?)^ *```/gms);
  return [...blocks].flatMap(([, block]) =>
    [
      ...block!
        .replaceAll(/\\\n/g, ' ')
        .replaceAll(/ # .*$/gm, '')
        .matchAll(new RegExp(`(?:^ *|sudo |\\()${PROGRAM} +(\\S+)(.*)$`, 'gm')),
    ].map(([, name, rest]) => [document, name!, rest!.replace(/\)"$/, '')] as const),
  );
});

/** As a shell splits it: the documents put quotes around whole words alone. */
function words(text: string): string[] {
  return [...text.matchAll(/(?:[^\s'"]|'[^']*'|"[^"]*")+/g)].map(([word]) =>
    word.replaceAll(/['"]/g, ''),
  );
}

it.each(documents)('%s: what is said of ours within a line can be copied as well', (document) => {
  const text = readFileSync(ROOT + document, 'utf8').replaceAll(/^ *```.*?^ *```/gms, '');
  const inline = [...text.matchAll(/`([^`]+)`/g)].map(([, code]) => code!);
  const ours = inline.filter((code) => code.startsWith(`${PROGRAM} `));
  expect(ours.filter((code) => /…|\.\.\./.test(code))).toEqual([]);
});

it('are many', () => {
  expect(commands.length).toBeGreaterThan(15);
});

it.each(commands)('%s: %s%s', async (_document, name, rest) => {
  expect(Object.keys(COMMANDS)).toContain(name);
  expect(rest).not.toMatch(/…|\.\.\./);
  const command = await COMMANDS[name]!.load();
  command.exitOverride().configureOutput({ writeErr: () => {} });
  const [own] = rest.split(' -- ');
  expect(command.parseOptions(words(own!)).unknown).toEqual([]);
});
