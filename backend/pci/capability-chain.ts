// Capability chains in an image of config space: walks them as far as they can be trusted (a chain may be broken or
// loop), and plans the patches that unlink every capability a guest must not see.

import { loadUint, storeUint } from '../../protocol/little-endian.ts';
import { fieldOf, maskOf, registerIn } from './registers.ts';
import { CAPABILITY_HEADER } from './spec/capability-header.ts';
import type { AllowedCapabilities } from './spec/capability-ids.ts';
import { EXTENDED_HEADER, extendedHeader } from './spec/extended-header.ts';
import { CONFIG_BYTES, HEADER, HEADER_BYTES } from './spec/header.ts';

/** `offset` and `next` are config space offsets; `next` is 0 at the end, and as the image has it otherwise. */
export interface CapabilityEntry {
  readonly id: number;
  readonly offset: number;
  readonly next: number;
}

/** Replaces the bits of `mask` by those of `value` in `length` bytes at config space offset `offset`. */
export interface ChainPatch {
  readonly offset: number;
  readonly length: 1 | 2 | 4;
  readonly mask: number;
  readonly value: number;
}

/** What stays in each chain, what goes, and the patches that make it so. */
export interface ChainPlan {
  readonly kept: readonly CapabilityEntry[];
  readonly keptExtended: readonly CapabilityEntry[];
  readonly unlinked: readonly CapabilityEntry[];
  readonly unlinkedExtended: readonly CapabilityEntry[];
  readonly patches: readonly ChainPatch[];
}

/** Every extended chain starts where the standard space ends. */
const FIRST_EXTENDED = CONFIG_BYTES;
/** Pointers are to dwords; their low bits are reserved. */
const POINTER_BITS = ~0x3;

/** Capabilities in chain order; ends at the first pointer that leaves the space or comes back. */
export function walkCapabilities(image: Uint8Array): CapabilityEntry[] {
  const status = image.length < HEADER_BYTES ? 0 : registerIn(image, 0, HEADER.status);
  if (fieldOf(HEADER.status, 'capabilitiesList', status) === 0) {
    return [];
  }
  const found: CapabilityEntry[] = [];
  const seen = new Set<number>();
  const end = Math.min(image.length, FIRST_EXTENDED);
  let offset = registerIn(image, 0, HEADER.capabilitiesPointer) & POINTER_BITS;
  while (offset >= HEADER_BYTES && offset + 2 <= end && !seen.has(offset)) {
    seen.add(offset);
    const id = registerIn(image, offset, CAPABILITY_HEADER.capabilityId);
    const next = registerIn(image, offset, CAPABILITY_HEADER.nextPointer) & POINTER_BITS;
    // A function that does not answer reads all-ones: that is no capability.
    if (id === 0xff) {
      break;
    }
    found.push({ id, offset, next });
    offset = next;
  }
  return found;
}

/** The first with this ID. */
export function findCapability(image: Uint8Array, wanted: number): CapabilityEntry | undefined {
  return walkCapabilities(image).find(({ id }) => id === wanted);
}

/** The first extended one with this ID. */
export function findExtendedCapability(
  image: Uint8Array,
  wanted: number,
): CapabilityEntry | undefined {
  return walkExtendedCapabilities(image).find(({ id }) => id === wanted);
}

/** Extended capabilities in chain order, null ones left out; the same protection as `walkCapabilities`. */
export function walkExtendedCapabilities(image: Uint8Array): CapabilityEntry[] {
  const found: CapabilityEntry[] = [];
  const seen = new Set<number>();
  let offset = FIRST_EXTENDED;
  while (offset >= FIRST_EXTENDED && offset + 4 <= image.length && !seen.has(offset)) {
    seen.add(offset);
    const header = registerIn(image, offset, EXTENDED_HEADER);
    if (header === 0 || header === 0xffff_ffff) {
      break;
    }
    const next = fieldOf(EXTENDED_HEADER, 'nextPointer', header) & POINTER_BITS;
    const id = fieldOf(EXTENDED_HEADER, 'capabilityId', header);
    if (id !== 0) {
      found.push({ id, offset, next });
    }
    offset = next;
  }
  return found;
}

/**
 * Plans both chains of `image` such that only allowed capabilities are linked. A head at 0x100 that is not allowed
 * becomes a null capability, because the extended chain always starts there.
 */
export function planChain(image: Uint8Array, allowed: AllowedCapabilities): ChainPlan {
  const standard = walkCapabilities(image);
  const extended = walkExtendedCapabilities(image);
  const kept = standard.filter(({ id }) => allowed.standard.has(id));
  const keptExtended = extended.filter(({ id }) => allowed.extended.has(id));
  const unlinked = standard.filter(({ id }) => !allowed.standard.has(id));
  const unlinkedExtended = extended.filter(({ id }) => !allowed.extended.has(id));
  const hasExtendedSpace = image.length > FIRST_EXTENDED;
  const patches = [
    ...standardPatches(kept),
    ...(hasExtendedSpace ? extendedPatches(keptExtended) : []),
  ];
  return { kept, keptExtended, unlinked, unlinkedExtended, patches };
}

/** `image` with only allowed capabilities linked: the chains as a guest finds them. */
export function patchedImage(image: Uint8Array, allowed: AllowedCapabilities): Uint8Array {
  const patched = image.slice();
  for (const { offset, length, mask, value } of planChain(image, allowed).patches) {
    const kept = loadUint(patched, offset, length) & ~mask;
    storeUint(patched, offset, length, kept | (value & mask));
  }
  return patched;
}

function standardPatches(kept: readonly CapabilityEntry[]): ChainPatch[] {
  const pointers = [
    HEADER.capabilitiesPointer.offset,
    ...kept.map(({ offset }) => offset + CAPABILITY_HEADER.nextPointer.offset),
  ];
  return pointers.map((offset, index) => ({
    offset,
    length: 1,
    mask: 0xff,
    value: kept[index]?.offset ?? 0,
  }));
}

function extendedPatches(kept: readonly CapabilityEntry[]): ChainPatch[] {
  const patches: ChainPatch[] = kept.map(({ offset }, index) => ({
    offset,
    length: 4,
    mask: maskOf(EXTENDED_HEADER, 'nextPointer'),
    value: extendedHeader(0, 0, kept[index + 1]?.offset ?? 0),
  }));
  if (kept[0]?.offset !== FIRST_EXTENDED) {
    const value = extendedHeader(0, 0, kept[0]?.offset ?? 0);
    patches.unshift({ offset: FIRST_EXTENDED, length: 4, mask: 0xffff_ffff, value });
  }
  return patches;
}
