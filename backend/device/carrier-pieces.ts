// What of a VF a VMM may map that has the VF in a trapped slot, as the fewest BARs that can be laid over it: powers of two,
// naturally aligned, without the pages of MSI-X, which the VMM keeps to itself. Pure.

import { walkCapabilities } from '../pci/capability-chain.ts';
import { fieldOf } from '../pci/registers.ts';
import { CapabilityId } from '../pci/spec/capability-ids.ts';
import { MSIX, MSIX_ENTRY_BYTES } from '../pci/spec/msix.ts';
import type { FunctionShape } from './physical-device.ts';

/** `size` bytes of the VF's BAR `vfBar`, from `offset` on, are the BAR `carrierBar` of its carrier. */
export interface CarrierPiece {
  readonly carrierBar: number;
  readonly vfBar: number;
  readonly offset: number;
  readonly size: number;
}

type Piece = Omit<CarrierPiece, 'carrierBar'>;

interface Area {
  readonly start: number;
  readonly end: number;
}

const PAGE_BYTES = 0x1000;
/** BARs of 64 bits that a function has room for. */
const MOST_PIECES = 3;
const LAST_BAR = 5;
const BIR = 0x7;

/** The largest pieces first, as many as a function has BARs for. What is left out stays trapped. */
export function piecesOf(vf: FunctionShape): readonly CarrierPiece[] {
  const reserved = msixAreas(vf.config);
  const pieces = vf.regions
    .filter(({ index }) => index <= LAST_BAR)
    .flatMap(({ index, mappable }) =>
      mappable
        .map(({ offset, size }) => ({ start: offset, end: offset + size }))
        .flatMap((area) => without(area, reserved.get(index) ?? []))
        .flatMap((area) => powersOfTwo(index, area)),
    );
  return pieces
    .toSorted((a, b) => b.size - a.size || a.vfBar - b.vfBar || a.offset - b.offset)
    .slice(0, MOST_PIECES)
    .map((piece, position) => ({ carrierBar: 2 * position, ...piece }));
}

/** Whole pages of MSI-X Table and PBA, by BAR. */
function msixAreas(config: Uint8Array): ReadonlyMap<number, readonly Area[]> {
  const areas = new Map<number, Area[]>();
  const msix = walkCapabilities(config).find(({ id }) => id === CapabilityId.msix);
  if (msix === undefined) {
    return areas;
  }
  const view = new DataView(config.buffer, config.byteOffset, config.byteLength);
  const control = view.getUint16(msix.offset + MSIX.messageControl.offset, true);
  const vectors = fieldOf(MSIX.messageControl, 'tableSize', control) + 1;
  const add = (register: number, bytes: number): void => {
    const value = view.getUint32(msix.offset + register, true);
    const start = value - (value % 8);
    const pages = {
      start: start - (start % PAGE_BYTES),
      end: Math.ceil((start + bytes) / PAGE_BYTES) * PAGE_BYTES,
    };
    areas.set(value & BIR, [...(areas.get(value & BIR) ?? []), pages]);
  };
  add(MSIX.table.offset, vectors * MSIX_ENTRY_BYTES);
  add(MSIX.pendingBitArray.offset, Math.ceil(vectors / 64) * 8);
  return areas;
}

function without(area: Area, reserved: readonly Area[]): readonly Area[] {
  let parts = [area];
  for (const { start, end } of reserved) {
    parts = parts
      .flatMap((part) => [
        { start: part.start, end: Math.min(part.end, start) },
        { start: Math.max(part.start, end), end: part.end },
      ])
      .filter((part) => part.start < part.end);
  }
  return parts;
}

/** Cuts an area into naturally aligned powers of two of at least a page, as few as there can be. */
function powersOfTwo(vfBar: number, { start, end }: Area): readonly Piece[] {
  const pieces: Piece[] = [];
  let offset = Math.ceil(start / PAGE_BYTES) * PAGE_BYTES;
  while (offset + PAGE_BYTES <= end) {
    let size = PAGE_BYTES;
    while (offset % (2 * size) === 0 && offset + 2 * size <= end) {
      size *= 2;
    }
    pieces.push({ vfBar, offset, size });
    offset += size;
  }
  return pieces;
}
