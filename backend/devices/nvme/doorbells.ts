// Which doorbell an offset is. NVM Express 1.4, "Submission Queue y Tail Doorbell", "Completion Queue y Head Doorbell".

import { bits, type Register, reg32 } from '../../pci/registers.ts';

/** CAP.DSTRD of the controllers here. */
export const STRIDE = 0;

export interface Doorbell {
  readonly queue: number;
  readonly isCompletion: boolean;
}

/** Bytes between two doorbells; `stride` is CAP.DSTRD. */
export function doorbellBytes(stride: number): number {
  return 4 << stride;
}

/** `offset` from the first doorbell's start; undefined between two doorbells. */
export function doorbellAt(offset: number, stride: number): Doorbell | undefined {
  const index = offset / doorbellBytes(stride);
  if (!Number.isInteger(index)) {
    return undefined;
  }
  return { queue: index >> 1, isCompletion: (index & 1) === 1 };
}

/** The same the other way; shadow doorbells lie alike in the host's memory. */
export function doorbellOffset({ queue, isCompletion }: Doorbell, stride: number): number {
  return (2 * queue + (isCompletion ? 1 : 0)) * doorbellBytes(stride);
}

/** The doorbells of `queues` pairs as registers, and what to call them, for traces. */
export function doorbellTable(
  queues: number,
  stride: number,
): { readonly table: Record<string, Register>; readonly names: Record<string, string> } {
  const table: Record<string, Register> = {};
  const names: Record<string, string> = {};
  for (let queue = 0; queue < queues; queue++) {
    for (const isCompletion of [false, true]) {
      const key = `${isCompletion ? 'completion' : 'submission'}${queue}`;
      const field = isCompletion ? 'head' : 'tail';
      table[key] = reg32(doorbellOffset({ queue, isCompletion }, stride), {
        [field]: bits(15, 0, 'rw'),
      });
      names[key] = isCompletion ? `CQ ${queue} Head Doorbell` : `SQ ${queue} Tail Doorbell`;
    }
  }
  return { table, names };
}
