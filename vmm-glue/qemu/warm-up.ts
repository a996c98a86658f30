// Runs once, unhurried, what will run while the guest is paused: code that has never run is slow, and the first
// enable of VFs should not be what finds out.
import {
  decodeEnableBegin,
  decodeEnableEnd,
  decodeVfPlug,
  decodeVfUnplug,
  encodeEnableBegin,
  encodeEnableEnd,
  encodeHotplugReply,
  encodeVfPlug,
  encodeVfUnplug,
} from '../../protocol/hotplug/codec.ts';
import type { Monitor } from './monitor.ts';
import { CONFIG_ADDRESS, PlacementMemory } from './placement.ts';

const ROUNDS = 20;
const BAR = { index: 0, size: 16384n, is64Bit: true, prefetchable: true, address: 0x1_0000_0000n };

/** Changes nothing: reading the address port has no effect on the guest. Rejects when QEMU does not answer. */
export async function warmUp(monitor: Monitor): Promise<void> {
  for (let round = 1; round <= ROUNDS; round++) {
    useCodec(round);
    new PlacementMemory(true).place(round, [BAR]);
    await monitor.readPort(CONFIG_ADDRESS);
  }
}

function useCodec(generation: number): void {
  const placements = [{ routingIdOffset: 1, bars: [BAR], placementLost: true }];
  decodeEnableBegin(encodeEnableBegin({ generation, numVfs: 1, placements }));
  decodeVfPlug(
    encodeVfPlug({
      vfIndex: 0,
      generation,
      routingIdOffset: 1,
      vendorId: 1,
      deviceId: 1,
      bars: [BAR],
      msixVectors: 1,
      placementLost: true,
    }),
  );
  decodeEnableEnd(encodeEnableEnd({ generation, outcome: 'enabled', text: '' }));
  decodeVfUnplug(
    encodeVfUnplug({ vfIndex: 0, generation, deadlineMilliseconds: 1, reason: 'guestDisabled' }),
  );
  encodeHotplugReply({ vfIndex: 0, generation, result: 'done', errno: 0, text: '' });
}
