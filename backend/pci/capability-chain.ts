// Capability chains in an image of config space: walks them as far as they can be trusted (a chain may be broken or
// loop), and plans the patches that unlink every capability a guest must not see.

import type { AllowedCapabilities } from './spec/capability-ids.ts';

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

const STATUS = 0x06;
const CAPABILITIES_LIST = 0x10;
const CAPABILITIES_POINTER = 0x34;
const FIRST_STANDARD = 0x40;
const FIRST_EXTENDED = 0x100;

/** Capabilities in chain order; ends at the first pointer that leaves the space or comes back. */
export function walkCapabilities(image: Uint8Array): CapabilityEntry[] {
  if (image.length <= CAPABILITIES_POINTER || (image[STATUS]! & CAPABILITIES_LIST) === 0) {
    return [];
  }
  const found: CapabilityEntry[] = [];
  const seen = new Set<number>();
  const end = Math.min(image.length, FIRST_EXTENDED);
  let offset = image[CAPABILITIES_POINTER]! & 0xfc;
  while (offset >= FIRST_STANDARD && offset + 2 <= end && !seen.has(offset)) {
    seen.add(offset);
    const next = image[offset + 1]! & 0xfc;
    // A function that does not answer reads all-ones: that is no capability.
    if (image[offset] === 0xff) {
      break;
    }
    found.push({ id: image[offset]!, offset, next });
    offset = next;
  }
  return found;
}

/** Extended capabilities in chain order, null ones left out; the same protection as `walkCapabilities`. */
export function walkExtendedCapabilities(image: Uint8Array): CapabilityEntry[] {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const found: CapabilityEntry[] = [];
  const seen = new Set<number>();
  let offset = FIRST_EXTENDED;
  while (offset >= FIRST_EXTENDED && offset + 4 <= image.length && !seen.has(offset)) {
    seen.add(offset);
    const header = view.getUint32(offset, true);
    if (header === 0 || header === 0xffff_ffff) {
      break;
    }
    const next = (header >>> 20) & 0xffc;
    const id = header & 0xffff;
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
    for (let lane = 0; lane < length; lane++) {
      const [bits, byte] = [(mask >>> (8 * lane)) & 0xff, (value >>> (8 * lane)) & 0xff];
      patched[offset + lane] = (patched[offset + lane]! & ~bits) | (byte & bits);
    }
  }
  return patched;
}

function standardPatches(kept: readonly CapabilityEntry[]): ChainPatch[] {
  const pointers = [CAPABILITIES_POINTER, ...kept.map(({ offset }) => offset + 1)];
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
    mask: 0xfff0_0000,
    value: ((kept[index + 1]?.offset ?? 0) << 20) >>> 0,
  }));
  if (kept[0]?.offset !== FIRST_EXTENDED) {
    const value = ((kept[0]?.offset ?? 0) << 20) >>> 0;
    patches.unshift({ offset: FIRST_EXTENDED, length: 4, mask: 0xffff_ffff, value });
  }
  return patches;
}
