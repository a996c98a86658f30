// The language of faults as data: what each takes, where it makes sense, and the values and conditions of rules.
// README.md beside this file explains them to people; a test holds the two together.

import type { FaultName } from '../device/faults.ts';
import { AdminOpcode, IoOpcode } from '../devices/nvme/spec/commands.ts';
import { Status } from '../devices/nvme/spec/status.ts';

/** How a value is written; gives undefined for a text that is none. */
export interface ValueKind {
  readonly rule: string;
  parse(text: string): number | undefined;
}

const LONGEST_DURATION = 60_000;
const LARGEST_COUNT = 1_000_000_000;
const MOST_VFS = 255;
const MOST_VECTORS = 2048;

function decimal(text: string, least: number, most: number): number | undefined {
  const value = Number(text);
  return /^\d{1,10}$/.test(text) && value >= least && value <= most ? value : undefined;
}

function hexadecimal(text: string, most: number): number | undefined {
  const value = /^0x[0-9a-f]{1,4}$/i.test(text) ? Number(text) : decimal(text, 0, most);
  return value !== undefined && value <= most ? value : undefined;
}

/** `unrecoveredReadError` → `unrecovered-read-error` */
function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function named(table: Readonly<Record<string, number>>): Map<string, number> {
  return new Map(Object.entries(table).map(([name, value]) => [kebab(name), value]));
}

const STATUSES = named(Status);
const IO_OPCODES = named(IoOpcode);
const ADMIN_OPCODES = named(AdminOpcode);
/** In an opcode's value: it is one of the admin commands, whose numbers are those of others in I/O queues. */
export const ADMIN = 0x100;

export const DURATION: ValueKind = {
  rule: 'a time of at most 60 s, such as 250ms or 3s',
  parse(text) {
    const [, digits, unit] = /^(\d{1,6})(ms|s)$/.exec(text) ?? [];
    const value = Number(digits) * (unit === 's' ? 1000 : 1);
    return value >= 1 && value <= LONGEST_DURATION ? value : undefined;
  },
};

const VF_INDEX: ValueKind = {
  rule: `the index of a VF, counted from 0, such as vf=2`,
  parse: (text) => decimal(text, 0, MOST_VFS - 1),
};

const STATUS: ValueKind = {
  rule: 'an NVMe status, by number or by name, such as 0x281 or unrecovered-read-error',
  parse: (text) => {
    const value = STATUSES.get(text) ?? hexadecimal(text, 0x7ff);
    return value === Status.success ? undefined : value;
  },
};

/** The values of conditions, by name. */
export const CONDITIONS = {
  after: {
    rule: 'how many occasions pass before, such as after=100',
    parse: (text) => decimal(text, 0, LARGEST_COUNT),
  },
  every: {
    rule: 'at which occasions it fires, such as every=100 for each hundredth',
    parse: (text) => decimal(text, 1, LARGEST_COUNT),
  },
  times: {
    rule: 'how often it fires at most, such as times=1',
    parse: (text) => decimal(text, 1, LARGEST_COUNT),
  },
  /** PF: -1. */
  function: {
    rule: 'a function: pf, vf0, vf1, …',
    parse: (text) =>
      text === 'pf' ? -1 : /^vf\d+$/.test(text) ? VF_INDEX.parse(text.slice(2)) : undefined,
  },
  vector: {
    rule: 'a vector, counted from 0, such as vector=3',
    parse: (text) => decimal(text, 0, MOST_VECTORS - 1),
  },
  opcode: {
    rule: 'an NVMe command, such as read, write, identify, or the number of an I/O command',
    parse: (text) => {
      const admin = ADMIN_OPCODES.get(text);
      return admin === undefined
        ? (IO_OPCODES.get(text) ?? hexadecimal(text, 0xff))
        : admin | ADMIN;
    },
  },
} as const satisfies Record<string, ValueKind>;
export type ConditionName = keyof typeof CONDITIONS;

/** What a rule of this fault may and must say. */
export interface FaultSpec {
  /** Before the colon, as in `vf=2:absent`. */
  readonly subject?: ValueKind;
  /** After the fault's name; with a default it may be left out. */
  readonly value?: ValueKind;
  readonly defaultValue?: number;
  readonly conditions: readonly ConditionName[];
  /** How often it fires unless the rule says so. */
  readonly times?: number;
  /** Once it has fired it goes on, until it is cleared. */
  readonly isLasting?: boolean;
  /** The only kind of device that has it. */
  readonly only?: 'nvme';
  /** Why a physical function of the host cannot have it. */
  readonly notOfHardware?: string;
}

const COUNTS = ['after', 'every', 'times'] as const;
const OF_FUNCTION = [...COUNTS, 'function'] as const;
const SPURIOUS_MILLISECONDS = 1000;

export const FAULTS: Readonly<Record<FaultName, FaultSpec>> = {
  'vf-enable:fail': { conditions: COUNTS },
  'vf-enable:delay': { value: DURATION, conditions: COUNTS },
  'vf:absent': { subject: VF_INDEX, conditions: COUNTS },
  'flr:hang': { conditions: OF_FUNCTION },
  'flr:delay': { value: DURATION, conditions: OF_FUNCTION },
  'config-read:all-ones': { conditions: OF_FUNCTION },
  'dma:error': {
    conditions: OF_FUNCTION,
    notOfHardware: 'its DMA goes through the IOMMU, not through this program',
  },
  'msix:lost': { conditions: [...OF_FUNCTION, 'vector'] },
  'msix:spurious': {
    value: DURATION,
    defaultValue: SPURIOUS_MILLISECONDS,
    conditions: [...OF_FUNCTION, 'vector'],
  },
  'aer:correctable': { conditions: OF_FUNCTION, times: 1 },
  'aer:nonfatal': { conditions: OF_FUNCTION, times: 1 },
  'aer:fatal': { conditions: OF_FUNCTION, times: 1 },
  'surprise-removal': {
    conditions: ['after', 'function'],
    isLasting: true,
    notOfHardware: 'its memory is mapped, and its DMA goes on',
  },
  'nvme:status': { value: STATUS, conditions: [...OF_FUNCTION, 'opcode'], only: 'nvme' },
  'nvme:drop': { conditions: [...OF_FUNCTION, 'opcode'], only: 'nvme' },
  'nvme:csts-cfs': { conditions: [...OF_FUNCTION, 'opcode'], times: 1, only: 'nvme' },
};
