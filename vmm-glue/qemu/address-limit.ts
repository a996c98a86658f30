// Where a guest can have memory that is mapped: KVM refuses addresses that the host's processor has not, or that it has taken
// itself, and QEMU (11.1) aborts over that.
import { readFileSync } from 'node:fs';

/** Addresses of a guest, `end` excluded. */
export interface AddressRange {
  readonly start: bigint;
  readonly end: bigint;
}

const ADDRESS_SIZES = /^address sizes\s*: (\d+) bits physical/m;
/** Where the kernel does not say, as on aarch64: what KVM gives a guest there by default. */
const USUAL_BITS = 40;
/** Interrupt controllers, firmware, and a few pages of KVM's: no BAR belongs there. */
const OF_THE_PLATFORM: AddressRange = { start: 0xfec0_0000n, end: 0x1_0000_0000n };

/** The first address that this machine's processor has not. */
export function addressLimit(): bigint {
  return addressLimitOf(readFileSync('/proc/cpuinfo', 'utf8'));
}

/** The same, by what the kernel says of the processor. */
export function addressLimitOf(cpuinfo: string): bigint {
  return 1n << BigInt(ADDRESS_SIZES.exec(cpuinfo)?.[1] ?? USUAL_BITS);
}

export function canBeMapped({ start, end }: AddressRange, limit: bigint): boolean {
  return end <= limit && (end <= OF_THE_PLATFORM.start || start >= OF_THE_PLATFORM.end);
}
