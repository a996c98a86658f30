// BAR sizing as every PCI kernel does it: write all ones, read back the size mask, put the old value back.
// Serves a function's own BARs and the VF BARs of the SR-IOV capability, which look the same.

import type { ConfigAccess } from './config-access.ts';

/** One BAR as sized; `size` in bytes, `raw` the register pair as it read before (type bits included). */
export interface SizedBar {
  readonly index: number;
  readonly offset: number;
  readonly size: bigint;
  readonly is64Bit: boolean;
  readonly prefetchable: boolean;
  readonly isIo: boolean;
}

/** Both halves of a BAR's address. */
export interface PlacedBar extends SizedBar {
  readonly address: bigint;
}

const ALL_ONES = 0xffffffff;
const IO_BIT = 0x1;
const TYPE_64 = 0x4;
const PREFETCHABLE = 0x8;
const BAR_COUNT = 6;

/** Sizes six BARs that start at `offset`, each dword read, written, read, and restored, in Linux's order. */
export async function sizeBars(config: ConfigAccess, offset: number): Promise<SizedBar[]> {
  const probes: { before: number; mask: number }[] = [];
  for (let index = 0; index < BAR_COUNT; index += 1) {
    const at = offset + 4 * index;
    const before = await config.read(at, 4);
    await config.write(at, 4, ALL_ONES);
    const mask = await config.read(at, 4);
    await config.write(at, 4, before);
    probes.push({ before, mask });
  }
  const bars: SizedBar[] = [];
  for (let index = 0; index < BAR_COUNT; index += 1) {
    const { mask } = probes[index]!;
    // A low dword that reads back as all ones is broken, one of zeros absent: both mean that there is no BAR.
    if (mask === 0 || mask === ALL_ONES) {
      continue;
    }
    const isIo = (mask & IO_BIT) !== 0;
    const is64Bit = !isIo && (mask & TYPE_64) !== 0;
    const high = is64Bit ? (probes[index + 1]?.mask ?? 0) : ALL_ONES;
    const low = isIo ? mask & ~0x3 : mask & ~0xf;
    const addressMask = (BigInt(high) << 32n) | BigInt(low >>> 0);
    bars.push({
      index,
      offset: offset + 4 * index,
      size: BigInt.asUintN(64, ~addressMask) + 1n,
      is64Bit,
      isIo,
      prefetchable: !isIo && (mask & PREFETCHABLE) !== 0,
    });
    if (is64Bit) {
      index += 1;
    }
  }
  return bars;
}

/** Writes a memory BAR's address with its type bits, low dword first. */
export async function writeBar(
  config: ConfigAccess,
  bar: SizedBar,
  address: bigint,
): Promise<void> {
  const typeBits = (bar.is64Bit ? TYPE_64 : 0) | (bar.prefetchable ? PREFETCHABLE : 0);
  const low = Number(address & 0xffffffffn) | typeBits;
  await config.write(bar.offset, 4, low >>> 0);
  if (bar.is64Bit) {
    await config.write(bar.offset + 4, 4, Number(address >> 32n));
  }
}
