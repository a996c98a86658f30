// Whether an answer is the recorded one. What is the hardware's own may differ from card to card: of its registers only
// those bits are compared that a driver can write, of the virtual ones (SR-IOV, ARI) and the header's BARs all.

import type { RegisterMap } from '../../../backend/pci/register-map.ts';

/** Capabilities that every backend emulates whole. */
const VIRTUAL_BLOCKS: ReadonlySet<string> = new Set(['SR-IOV', 'ARI']);
/** Registers that hold what hardware did, or addresses that firmware chose. */
const NEVER: ReadonlySet<string> = new Set(['Status', 'Device Status', 'Link Status']);

/** Where two answers to one access differ: the bytes that a register has of it; undefined where they agree. */
export function difference(
  map: RegisterMap,
  offset: number,
  recorded: Uint8Array,
  answered: Uint8Array,
  isStrict: boolean,
): { readonly offset: number; readonly length: number } | undefined {
  for (const piece of map.pieces(offset, recorded.length)) {
    const at = piece.offset - offset;
    for (let lane = 0; lane < piece.length; lane++) {
      const mask = isStrict ? 0xff : maskAt(map, piece.offset + lane);
      if (((recorded[at + lane]! ^ answered[at + lane]!) & mask) !== 0) {
        return piece;
      }
    }
  }
  return undefined;
}

function maskAt(map: RegisterMap, offset: number): number {
  const placed = map.at(offset);
  if (placed === undefined || NEVER.has(placed.name)) {
    return 0;
  }
  if (VIRTUAL_BLOCKS.has(placed.block)) {
    return 0xff;
  }
  return (placed.register.rw >>> (8 * (offset - placed.offset))) & 0xff;
}
