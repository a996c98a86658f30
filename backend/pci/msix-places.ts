// Where the structures of MSI-X lie in a function's BARs, by its capability. Pure.

import { findCapability } from './capability-chain.ts';
import { fieldOf, registerIn } from './registers.ts';
import { CapabilityId } from './spec/capability-ids.ts';
import { MSIX, MSIX_ENTRY_BYTES } from './spec/msix.ts';

/** Bytes `start` to `end` (exclusive) of a BAR. */
export interface MsixPlace {
  readonly bar: number;
  readonly start: number;
  readonly end: number;
}

export interface MsixPlaces {
  readonly vectors: number;
  readonly table: MsixPlace;
  readonly pendingBits: MsixPlace;
}

const CAPABILITY_END = MSIX.pendingBitArray.offset + MSIX.pendingBitArray.bytes;
/** What `offset` of a register counts. */
const UNIT_BYTES = 8;
/** Pending bits come in quadwords. */
const BITS_PER_UNIT = 64;

/** Undefined where the function has no MSI-X, or its config space ends before the capability does. */
export function msixPlaces(config: Uint8Array): MsixPlaces | undefined {
  const entry = findCapability(config, CapabilityId.msix);
  if (entry === undefined || entry.offset + CAPABILITY_END > config.length) {
    return undefined;
  }
  const control = registerIn(config, entry.offset, MSIX.messageControl);
  const vectors = fieldOf(MSIX.messageControl, 'tableSize', control) + 1;
  const placed = (register: 'table' | 'pendingBitArray', bytes: number): MsixPlace => {
    const value = registerIn(config, entry.offset, MSIX[register]);
    const start = fieldOf(MSIX[register], 'offset', value) * UNIT_BYTES;
    return { bar: fieldOf(MSIX[register], 'barIndicator', value), start, end: start + bytes };
  };
  return {
    vectors,
    table: placed('table', vectors * MSIX_ENTRY_BYTES),
    pendingBits: placed('pendingBitArray', Math.ceil(vectors / BITS_PER_UNIT) * UNIT_BYTES),
  };
}
