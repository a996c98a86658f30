// What is known of a VF's config space when the VF has gone: as much of it as the next one will have.

import { SeenBytes } from './decode.ts';
import { HEADER } from './spec/header.ts';

/** A slot keeps these for its next VF, as its VMM does. */
const KEPT = [
  HEADER.command,
  HEADER.bar0,
  HEADER.bar1,
  HEADER.bar2,
  HEADER.bar3,
  HEADER.bar4,
  HEADER.bar5,
];

/**
 * The VF has gone: of its regions, of which `config` is the number of config space, what the next one will have is left.
 * Everything else is as in `image` again, or unknown where there is none.
 */
export function forgetVf(
  regions: Map<number, SeenBytes>,
  config: number,
  image?: Uint8Array,
): void {
  const seen = regions.get(config);
  regions.clear();
  if (seen === undefined) {
    return;
  }
  const next = new SeenBytes(image);
  regions.set(config, next);
  for (const { offset, bytes } of KEPT) {
    const value = seen.value(offset, bytes);
    if (value !== undefined) {
      next.set(offset, bytes, value);
    }
  }
}

/** The step of the SR-IOV machine with which the VFs are no longer there. */
export function takesVfsAway(before: unknown, after: unknown): boolean {
  return before === 'enabled' && after !== 'enabled';
}
