// What of a VF a VMM may map that has the VF in a trapped slot, as the fewest BARs that can be laid over it: powers of two,
// naturally aligned, without the pages of MSI-X, which the VMM keeps to itself. Pure.

import { PAGE_BYTES } from '../../protocol/page.ts';
import { msixPlaces } from '../pci/msix-places.ts';
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

/** BARs of 64 bits that a function has room for. */
const MOST_PIECES = 3;
const LAST_BAR = 5;

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
  const places = msixPlaces(config);
  for (const { bar, start, end } of places === undefined
    ? []
    : [places.table, places.pendingBits]) {
    const pages = {
      start: start - (start % PAGE_BYTES),
      end: Math.ceil(end / PAGE_BYTES) * PAGE_BYTES,
    };
    areas.set(bar, [...(areas.get(bar) ?? []), pages]);
  }
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
