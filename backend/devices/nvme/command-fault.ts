// What goes wrong with an NVMe command on purpose, by the rules of fault-language.ts.

import type { Faults } from '../../device/faults.ts';
import { opcodeValue } from './fault-language.ts';
import type { Command } from './spec/commands.ts';
import type { Status } from './spec/status.ts';

/** `drop`: it is never completed. */
export type CommandFault =
  | { readonly kind: 'status'; readonly status: Status }
  | { readonly kind: 'drop' }
  | { readonly kind: 'fatal'; readonly rule: string };

export function commandFault(
  faults: Faults,
  name: string,
  { opcode }: Command,
  isAdmin: boolean,
): CommandFault | undefined {
  const occasion = { function: name, own: { opcode: opcodeValue(opcode, isAdmin) } };
  const fatal = faults.fires('nvme:csts-cfs', occasion);
  if (fatal !== undefined) {
    return { kind: 'fatal', rule: fatal.rule };
  }
  if (faults.fires('nvme:drop', occasion) !== undefined) {
    return { kind: 'drop' };
  }
  const status = faults.fires('nvme:status', occasion);
  return status && { kind: 'status', status: status.value as Status };
}
