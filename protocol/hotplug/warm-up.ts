// Encodes and decodes each message of the hot-plug extension, for nothing: the first of a kind costs as much as hundreds
// of later ones, and should not be one that a guest waits for. Called when a client of the extension attaches, by both sides.
import {
  decodeEnableBegin,
  decodeEnableEnd,
  decodeHotplugReply,
  decodeVfPlug,
  decodeVfUnplug,
  encodeEnableBegin,
  encodeEnableEnd,
  encodeHotplugReply,
  encodeVfPlug,
  encodeVfUnplug,
} from './codec.ts';

const ROUNDS = 20;
const BAR = { index: 0, size: 0x4000n, is64Bit: true, prefetchable: true, address: 0x1_0000_0000n };

export function warmUpCodec(): void {
  for (let generation = 1; generation <= ROUNDS; generation++) {
    const about = { vfIndex: 0, generation };
    const ids = { routingIdOffset: 1, vendorId: 1, deviceId: 1, msixVectors: 1 };
    const plug = { ...about, ...ids, bars: [BAR], placementLost: true, slotCommand: 2 };
    decodeEnableBegin(
      encodeEnableBegin({ generation, numVfs: 1, readyAfterMilliseconds: 100, placed: true }),
    );
    decodeVfPlug(encodeVfPlug(plug));
    decodeEnableEnd(encodeEnableEnd({ generation, outcome: 'enabled', text: '' }));
    decodeVfUnplug(encodeVfUnplug({ ...about, deadlineMilliseconds: 1, reason: 'guestDisabled' }));
    decodeHotplugReply(encodeHotplugReply({ ...about, result: 'done', errno: 0, text: '' }));
  }
}
