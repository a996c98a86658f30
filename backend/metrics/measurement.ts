// What the device thread answers when it is asked how things are; sent to the main thread as it is.

import type { DeviceStatus } from '../../protocol/hotplug/status.ts';
import type { ActivityCounts } from './activity.ts';

export interface Measurement {
  readonly status: DeviceStatus;
  readonly activity: ActivityCounts;
  /** CPU time of the longest turn of the device thread since the last measurement. */
  readonly longestTurnSeconds: number;
}
