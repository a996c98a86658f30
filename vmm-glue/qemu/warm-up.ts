// Runs once, unhurried, what will run while the guest is paused: code that has never run is slow, and the first
// enable of VFs should not be what finds out.
import { warmUpCodec } from '../../protocol/hotplug/warm-up.ts';
import { PlacementMemory } from './placement.ts';
import type { QemuGuest } from './qemu-guest.ts';

const ROUNDS = 20;
const BAR = { index: 0, size: 16384n, is64Bit: true, prefetchable: true, address: 0x1_0000_0000n };

/** Changes nothing. Rejects when QEMU does not answer. */
export async function warmUp(guest: QemuGuest): Promise<void> {
  warmUpCodec();
  for (let round = 1; round <= ROUNDS; round++) {
    new PlacementMemory(true).place(round, [BAR]);
    await guest.warmUp();
  }
}
