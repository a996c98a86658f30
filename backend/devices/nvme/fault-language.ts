// What can go wrong with an NVMe controller on purpose, as rules say it: `nvme:status=write-fault@opcode=read`. Data.

import { type FaultLanguage, OF_FUNCTION, type ValueKind } from '../../device/faults.ts';
import { AdminOpcode, IoOpcode } from './spec/commands.ts';
import { Status } from './spec/status.ts';

const LARGEST_STATUS = 0x7ff;
const LARGEST_OPCODE = 0xff;
/** In an opcode's value: it is one of the admin commands, whose numbers are those of others in I/O queues. */
const ADMIN = 0x100;

/** A command as the condition `opcode` looks at it. */
export function opcodeValue(opcode: number, isAdmin: boolean): number {
  return isAdmin ? opcode | ADMIN : opcode;
}

function numbered(text: string, most: number): number | undefined {
  const value = /^(?:0x[0-9a-f]{1,4}|\d{1,10})$/i.test(text) ? Number(text) : undefined;
  return value !== undefined && value <= most ? value : undefined;
}

/** By what people write: `unrecoveredReadError` as `unrecovered-read-error`. */
function named(table: Readonly<Record<string, number>>): Map<string, number> {
  const kebab = (name: string): string =>
    name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  return new Map(Object.entries(table).map(([name, value]) => [kebab(name), value]));
}

const STATUSES = named(Status);
const IO_OPCODES = named(IoOpcode);
const ADMIN_OPCODES = named(AdminOpcode);

const STATUS: ValueKind = {
  rule: 'an NVMe status, by number or by name, such as 0x281 or unrecovered-read-error',
  parse(text) {
    const value = STATUSES.get(text) ?? numbered(text, LARGEST_STATUS);
    return value === Status.success ? undefined : value;
  },
};

const OF_COMMAND = [...OF_FUNCTION, 'opcode'];

export const NVME_FAULTS = {
  faults: {
    'nvme:status': { value: STATUS, conditions: OF_COMMAND },
    'nvme:drop': { conditions: OF_COMMAND },
    'nvme:csts-cfs': { conditions: OF_COMMAND, times: 1 },
  },
  conditions: {
    opcode: {
      rule: 'an NVMe command, such as read, write, identify, or the number of an I/O command',
      parse(text) {
        const admin = ADMIN_OPCODES.get(text);
        return admin === undefined
          ? (IO_OPCODES.get(text) ?? numbered(text, LARGEST_OPCODE))
          : opcodeValue(admin, true);
      },
      // Unless told otherwise, commands are those of I/O queues: a driver that cannot set up its queues shows nothing.
      concerns: (wanted, is) => (wanted === undefined ? (is & ADMIN) === 0 : is === wanted),
    },
  },
} as const satisfies FaultLanguage;
