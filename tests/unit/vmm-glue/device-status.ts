// A backend's status, for tests of what people are shown of it.

import type { DeviceStatus } from '../../../protocol/hotplug/status.ts';

export const COUNTS = {
  attached: true,
  messages: 20,
  interrupts: 1,
  dmaWindows: 2,
  failedMaps: [],
};
export const STATUS: DeviceStatus = {
  version: 1,
  device: '0000:01:00.0',
  phase: 'enabled',
  failure: null,
  numVfs: 2,
  totalVfs: 8,
  vfEnable: true,
  generation: 3,
  hotplug: 'glue',
  pf: { ...COUNTS, messages: 1_234_567_890 },
  clients: [],
  vfs: [
    { ...COUNTS, index: 0, generation: 3, state: 'up', holder: 'guest' },
    { ...COUNTS, index: 1, generation: 3, state: 'coming-up', holder: null },
    { ...COUNTS, index: 2, generation: 0, state: 'absent', holder: null, attached: false },
  ],
  quarantine: [],
};
