// What the device thread answers when it is asked how things are; sent to the main thread as it is.

import type { DeviceStatus } from '../../protocol/hotplug/status.ts';
import type { ActivityCounts } from './activity.ts';
import type { LongestTurn } from './turn-time.ts';

export interface Measurement {
  readonly status: DeviceStatus;
  readonly activity: ActivityCounts;
  /** Of the device thread, since the last measurement. */
  readonly longestTurn: LongestTurn;
}
