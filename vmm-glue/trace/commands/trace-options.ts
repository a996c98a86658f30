// What `trace` may be asked for, and which options go together: it does one thing at a time.

import { UserError } from '../../../protocol/user-error.ts';
import type { FilterOptions } from '../reading/filter.ts';

export interface TraceOptions extends FilterOptions {
  readonly follow?: true;
  readonly json?: true;
  readonly summary?: true;
  readonly explain?: true;
  readonly html?: string;
  readonly perfetto?: string;
  readonly svg?: string;
  readonly diff?: string;
  readonly start?: true;
  readonly stop?: true;
  readonly socketPath?: string;
  readonly size?: number;
}

type Name = keyof TraceOptions;

const FILTERS: readonly Name[] = ['function', 'register', 'since', 'only'];
const DRAWINGS: readonly Name[] = ['html', 'perfetto', 'svg'];

/** What is done, by the option that asks for it, and the options that it knows; the first that is given counts. */
const DEEDS: readonly (readonly [deed: Name, known: readonly Name[]])[] = [
  ['start', ['socketPath', 'size']],
  ['stop', ['socketPath']],
  ['summary', FILTERS],
  ['diff', FILTERS],
  // The rules, and the arrows of a drawing, need to see everything.
  ['explain', []],
  ...DRAWINGS.map((each) => [each, DRAWINGS] as const),
];
const PRINTING: readonly Name[] = ['follow', 'json', ...FILTERS];

/** @throws UserError for options of which one would be ignored. */
export function refuseContradictions(options: TraceOptions): void {
  const given = (Object.keys(options) as Name[]).filter((name) => options[name] !== undefined);
  const [deed, known] = DEEDS.find(([name]) => given.includes(name)) ?? [undefined, PRINTING];
  const odd = given.find((name) => name !== deed && !known.includes(name));
  if (odd === undefined) {
    return;
  }
  throw new UserError(
    deed === undefined
      ? `${flag(odd)} goes with --start or --stop alone`
      : `${flag(odd)} does not go with ${flag(deed)}`,
    'leave one of them out',
    2,
  );
}

function flag(name: Name): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}
