// Which events are shown.

import { UserError } from '../../../protocol/user-error.ts';
import type { NamedEvent } from './naming.ts';

export interface FilterOptions {
  /** `pf`, `vf2`, `carrier2`, or several with commas. */
  readonly function?: string;
  /** A register's name; `*` stands for anything. */
  readonly register?: string;
  /** Seconds since the trace began. */
  readonly since?: number;
  /** `writes`, `reads`, or kinds of events, with commas. */
  readonly only?: string;
}

export const ONLY = [
  'reads',
  'writes',
  'accesses',
  'answer',
  'dmaMap',
  'dmaUnmap',
  'setIrqs',
  'gap',
  'trace',
  'session',
  'message',
  'reset',
  'mapped',
  'hotplug',
  'step',
  'effect',
  'host',
  'glue',
] as const;

export type Filter = (named: NamedEvent) => boolean;

/** Whether an event is to be shown. @throws UserError for a name that there is not. */
export function filterOf(options: FilterOptions): Filter {
  const functions = options.function?.split(',');
  const unknown = functions?.find((name) => !/^(pf|(vf|carrier)\d+)$/.test(name));
  if (unknown !== undefined) {
    throw new UserError(
      `--function=${unknown}: there is no such function`,
      'say pf, vf0, vf1 …, or carrier0, carrier1 … for what has VFs mapped in QEMU',
      2,
    );
  }
  const only = options.only?.split(',');
  const wrong = only?.find((name) => !(ONLY as readonly string[]).includes(name));
  if (wrong !== undefined) {
    throw new UserError(`--only=${wrong}: there is no such kind`, `say ${ONLY.join(', ')}`, 2);
  }
  const register = options.register === undefined ? undefined : pattern(options.register);
  const since = (options.since ?? 0) * 1e9;
  return ({ event, what }) =>
    event.time >= since &&
    (functions === undefined || functions.includes(event.function)) &&
    (register === undefined || (event.kind === 'access' && register.test(what))) &&
    (only === undefined || only.some((name) => isOf(name, event)));
}

function isOf(name: string, event: NamedEvent['event']): boolean {
  if (event.kind !== 'access') {
    return event.kind === name;
  }
  return name === 'accesses' || name === (event.isWrite ? 'writes' : 'reads');
}

function pattern(text: string): RegExp {
  const source = text
    .split('*')
    .map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'))
    .join('.*');
  return new RegExp(`^${source}$`, 'i');
}
