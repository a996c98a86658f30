// What the main thread and the device thread say to each other. Messages go by a MessagePort; those to the device
// thread are followed by a signal on its eventfd, because it waits in poll and not in an event loop.

import type { Explanation } from '../../protocol/explained-error.ts';
import type { SriovPhase } from '../../protocol/hotplug/status.ts';
import type { LogFields, LogLevel } from '../../protocol/log.ts';
import type { SocketAccess } from '../../protocol/unix/socket-access.ts';
import type { Excerpt } from '../../protocol/user-error.ts';
import type {
  DeviceDescription,
  FunctionHandle,
  HostRequestName,
  HostRequests,
} from '../device/physical-device.ts';
import type { Measurement } from '../metrics/measurement.ts';
import type { TurnCount } from './watchdog.ts';

/** Given to the worker at its start. */
export interface DeviceThreadOptions {
  /** Name of the device's kind in backend/devices/registry.ts. */
  readonly kind: string;
  readonly description: DeviceDescription;
  readonly pf: FunctionHandle;
  /** Where the PF is served: a path to listen at, or a socket that is connected already. */
  readonly socket: { readonly path: string } | { readonly fd: number };
  /** A folder for one socket per VF (slots); undefined: no slots. */
  readonly vfSockets: string | undefined;
  /** Who may connect to sockets with a path; undefined: the owner alone. */
  readonly access?: SocketAccess | undefined;
  readonly spinMicroseconds: number;
  /** Where turns are counted, for a device whose code may loop. */
  readonly turnCount?: TurnCount | undefined;
  readonly wakeFd: number;
  readonly plugMilliseconds: number;
  readonly unplugMilliseconds: number;
  /** How often the thread tells that it comes round; undefined: never. */
  readonly aliveMilliseconds?: number | undefined;
  /** A file whose room is reserved, to record a trace into from the start on. */
  readonly traceFd?: number | undefined;
  /** Rules of faults to arm from the start. */
  readonly faults?: readonly string[] | undefined;
  /** Counts what happens, for `measure`. */
  readonly hasMetrics?: boolean;
  /** Somebody hears of each phase of the SR-IOV machine. */
  readonly tellsPhases?: boolean;
  /** Lines below this need not cross threads. */
  readonly logLevel: LogLevel | 'silent';
}

/** HostError as it crosses threads. */
export interface HostFailure extends Explanation {
  readonly call: string;
  readonly errno: number;
  readonly path: string;
}

export type ToDeviceThread =
  | { readonly type: 'reply'; readonly id: number; readonly reply: unknown }
  | { readonly type: 'failed'; readonly id: number; readonly failure: HostFailure }
  | { readonly type: 'vfLost'; readonly vfIndex: number }
  | { readonly type: 'pfLost' }
  /** Asks how things are; answered by `measured`. */
  | { readonly type: 'measure' }
  | { readonly type: 'stop' };

export type ToMainThread =
  | { readonly type: 'ready' }
  | { readonly type: 'refused'; readonly why: Explanation; readonly excerpt?: Excerpt }
  | {
      readonly type: 'request';
      readonly id: number;
      readonly name: HostRequestName;
      readonly args: HostRequests[HostRequestName]['args'];
    }
  | {
      readonly type: 'log';
      readonly level: LogLevel;
      readonly message: string;
      readonly fields: LogFields;
    }
  | { readonly type: 'measured'; readonly measurement: Measurement }
  /** An fd from a peer, of a file that may never let itself be closed; it is the main thread's now. */
  | { readonly type: 'closePeerFile'; readonly fd: number }
  /** The thread comes round, and so its loop does. */
  | { readonly type: 'alive' }
  /** The SR-IOV machine has another phase; `vfs`: how many the guest has enabled. */
  | { readonly type: 'phase'; readonly phase: SriovPhase; readonly vfs: number }
  /** The only client of a socket that was handed over has gone. */
  | { readonly type: 'clientGone' }
  | { readonly type: 'stopped' };
