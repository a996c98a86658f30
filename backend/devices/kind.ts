// A kind of device: what stands behind the port `device/physical-device.ts`. One folder each, named in registry.ts.

import type { Clock } from '../../protocol/clock.ts';
import type { Log } from '../../protocol/log.ts';
import type { FaultLanguage, Faults } from '../device/faults.ts';
import type {
  DeviceFunction,
  FunctionHandle,
  FunctionWires,
  HostLink,
  PhysicalDevice,
} from '../device/physical-device.ts';

/** An option of the command line that means something for some kinds of device only. */
export interface KindOption {
  /** As commander reads it: `--vf-bar-size <bytes>`. */
  readonly flags: string;
  readonly description: string;
  /** @throws InvalidArgumentError */
  readonly parse?: (text: string) => unknown;
  readonly choices?: readonly string[];
}

/** What was given on the command line, by the options' names in camelCase. */
export type KindOptions = Readonly<Record<string, unknown>>;

/** Around a function that is opened on the device thread; `generation`: of the enable that made it, 0 for the PF. */
export interface OpenContext {
  readonly generation: number;
  readonly wires: FunctionWires;
  readonly host: HostLink;
  /** The device thread's. */
  readonly clock: Clock;
  readonly log: Log;
  /** What goes wrong on purpose: a kind asks for what only it can have go wrong. */
  readonly faults: Faults;
}

/** Around a device that is opened on the main thread. */
export interface DeviceContext {
  readonly log: Log;
  readonly clock: Clock;
  /** Nobody wants the device any more: `open` may leave off, and reject with the reason. */
  readonly ending?: AbortSignal;
}

/** Code that is somebody else's has as long to load; to bundle it is part of that. */
export const LONGEST_LOAD_MILLISECONDS = 5000;

export interface DeviceKind {
  /** Its code is somebody else's: a turn of the device thread may never end. */
  readonly mayLoop?: boolean;
  /** A stack of its code by the lines that its author wrote. */
  sourceStack?(stack: string): string;
  /** What can go wrong with it on purpose, beside what can with every kind; each name begins with the kind's and a colon. */
  readonly faults?: FaultLanguage;
  /** On the main thread; leaves nothing behind when it fails. @throws HostError | UserError */
  open(options: KindOptions, context: DeviceContext): Promise<PhysicalDevice>;
  /** On the device thread, before anything is opened there. @throws UserError */
  load?(): Promise<void>;
  /** On the device thread; `handle` is one that its PhysicalDevice gave. @throws HostError */
  openFunction(handle: FunctionHandle, context: OpenContext): DeviceFunction;
}
