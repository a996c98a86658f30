// The status of a device with as many VFs as there can be: whoever asks often must not hold the device thread up.
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { PeerSession } from '../../../backend/hotplug/endpoint.ts';
import { deviceStatus } from '../../../backend/hotplug/status.ts';
import { DeviceUnderTest } from '../device/device-under-test.ts';

const MOST_VFS = 255;
let device: DeviceUnderTest;
beforeEach(() => {
  device = new DeviceUnderTest();
});
afterEach(() => {
  device.close();
});

it('looks at each session as often as there are lists of them, and not once for each VF', () => {
  const { pf, vf, description } = device;
  let looks = 0;
  const sessionOf = (served: typeof pf | typeof vf): PeerSession =>
    ({
      role: 'device',
      messages: 2,
      get endpoint() {
        looks++;
        return { function: served, native: false };
      },
    }) as unknown as PeerSession;
  const status = deviceStatus({
    description,
    state: { phase: 'disabled', lastGeneration: 0 },
    pf,
    vfs: Array.from({ length: MOST_VFS }, () => vf),
    hotplugRole: undefined,
    whyTrapped: () => undefined,
    hasCarriers: true,
    sessions: [sessionOf(pf), ...Array.from({ length: MOST_VFS }, () => sessionOf(vf))],
  });
  expect(status.pf.messages).toBe(2);
  expect(status.vfs[7]!.messages).toBe(2 * MOST_VFS);
  expect(looks).toBeLessThanOrEqual(3 * (1 + MOST_VFS));
});
