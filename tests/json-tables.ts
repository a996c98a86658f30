// The tables of examples/json-output.md as a schema: which members there may be, and of which types.
import { readFileSync } from 'node:fs';

interface Member {
  /** `findings[].fix?` */
  readonly path: string;
  readonly types: readonly string[];
}

const PAGE = new URL('../examples/json-output.md', import.meta.url);

/** What `value` has against the table below the heading `command`: a line each, none where it is as described. */
export function differences(command: string, value: unknown): string[] {
  const members = tableOf(command);
  const found = new Map<string, Set<string>>();
  collect('', value, found);
  const unknown = [...found].flatMap(([path, types]) => {
    const member = members.find((each) => each.path.replaceAll('?', '') === path);
    if (member === undefined) {
      return [`${path} is not described`];
    }
    return [...types]
      .filter((type) => !fits(type, member.types))
      .map((type) => `${path} is ${type}`);
  });
  const absent = members
    .filter(({ path }) => !path.includes('?') && !path.includes('[]'))
    .filter(({ path }) => !found.has(path))
    .map(({ path }) => `${path} is absent`);
  return [...unknown, ...absent];
}

function tableOf(command: string): Member[] {
  const section = readFileSync(PAGE, 'utf8').split(`\n## ${command}\n`)[1]!.split('\n## ')[0]!;
  return section
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .flatMap((line) => {
      const [, paths = '', types = ''] = line.split('|').map((cell) => cell.trim());
      return wordsOf(paths).map((path) => ({ path, types: wordsOf(types) }));
    });
}

function wordsOf(cell: string): string[] {
  return cell.split(',').map((word) => word.trim().replaceAll('`', ''));
}

/** The members that are no objects, by path, each with what it was seen to be. */
function collect(path: string, value: unknown, found: Map<string, Set<string>>): void {
  if (Array.isArray(value)) {
    for (const each of value) {
      collect(`${path}[]`, each, found);
    }
  } else if (typeof value === 'object' && value !== null) {
    for (const [name, each] of Object.entries(value)) {
      collect(path === '' ? name : `${path}.${name}`, each, found);
    }
  } else {
    found.set(path, (found.get(path) ?? new Set()).add(JSON.stringify(value)));
  }
}

function fits(literal: string, types: readonly string[]): boolean {
  const value: unknown = JSON.parse(literal);
  return types.includes(literal) || (value !== null && types.includes(typeof value));
}
