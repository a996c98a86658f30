// Counts what happens to the device, for metrics: an observer on the device thread that adds to numbers and does nothing
// else. The main thread asks for them when somebody wants to know (metrics-server.ts).

import { errnoName } from '../../protocol/errno.ts';
import { HotplugCommand } from '../../protocol/hotplug/commands.ts';
import { Command, RegionIndex } from '../../protocol/vfio-user/commands.ts';
import type { PartialObserver } from '../device/observer.ts';
import type { IrqRequest } from '../device/physical-device.ts';

/** Accesses that reach the backend; those to mapped memory do not. */
export const ACCESS_KINDS = ['config_read', 'config_write', 'bar_read', 'bar_write'] as const;
export type AccessKind = (typeof ACCESS_KINDS)[number];

/** Upper bounds of the latency histograms, in seconds; what takes longer is in one more bucket. */
export const LATENCY_BOUNDS = [
  2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 5e-3, 2.5e-2, 0.1, 0.5, 2.5,
] as const;

/** What one function has been through. */
export interface FunctionActivity {
  readonly accesses: Record<AccessKind, number>;
  dmaMaps: number;
  dmaUnmaps: number;
  interruptSetups: number;
  deviceResets: number;
  functionResets: number;
}

/** Answers of one kind: `counts[i]` took no longer than bound i and longer than the one before; `sum` in seconds. */
export interface Latencies {
  readonly counts: number[];
  sum: number;
}

/** Everything since the start; can be sent to another thread. */
export interface ActivityCounts {
  /** By name: `pf`, `vf0`, … */
  readonly functions: ReadonlyMap<string, FunctionActivity>;
  /** By access kind, or by command. */
  readonly latencies: ReadonlyMap<string, Latencies>;
  /** Refusals, by `command error`. */
  readonly errors: ReadonlyMap<string, number>;
  /** Work of the host that failed, by its name. */
  readonly hostFailures: ReadonlyMap<string, number>;
  readonly enables: Readonly<Record<'enabled' | 'failed', number>>;
}

const REGION_COMMANDS: ReadonlySet<number> = new Set([
  Command.regionRead,
  Command.regionWrite,
  Command.regionWriteMulti,
]);
/** `dmaMap` as `dma_map`, by number. */
const COMMAND_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries({ ...Command, ...HotplugCommand }).map(([key, number]) => [
    number,
    key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
  ]),
);
/** What a client invents is one kind: it makes no new series. */
const UNKNOWN_COMMAND = 'unknown';

export class Activity implements PartialObserver {
  readonly #functions = new Map<string, FunctionActivity>();
  readonly #latencies = new Map<string, Latencies>();
  readonly #errors = new Map<string, number>();
  readonly #hostFailures = new Map<string, number>();
  readonly #enables = { enabled: 0, failed: 0 };
  #lastAccess: AccessKind = 'config_read';

  get counts(): ActivityCounts {
    return {
      functions: this.#functions,
      latencies: this.#latencies,
      errors: this.#errors,
      hostFailures: this.#hostFailures,
      enables: this.#enables,
    };
  }

  access(name: string, isWrite: boolean, region: number): void {
    const kind =
      region === RegionIndex.config
        ? isWrite
          ? 'config_write'
          : 'config_read'
        : isWrite
          ? 'bar_write'
          : 'bar_read';
    this.#lastAccess = kind;
    this.#function(name).accesses[kind]++;
  }

  dma(name: string, isMap: boolean): void {
    const of = this.#function(name);
    if (isMap) {
      of.dmaMaps++;
    } else {
      of.dmaUnmaps++;
    }
  }

  setIrqs(name: string, _request: IrqRequest): void {
    this.#function(name).interruptSetups++;
  }

  reset(name: string, kind: 'device' | 'function'): void {
    const of = this.#function(name);
    if (kind === 'device') {
      of.deviceResets++;
    } else {
      of.functionResets++;
    }
  }

  answered(
    _name: string,
    command: number,
    milliseconds: number,
    errno: number,
    isLate: boolean,
  ): void {
    if (errno !== 0) {
      count(this.#errors, `${nameOf(command)} ${errnoName(errno)}`);
      return;
    }
    const latencies = this.#latenciesOf(
      REGION_COMMANDS.has(command) ? this.#accessKind(command, isLate) : nameOf(command),
    );
    const seconds = milliseconds / 1000;
    let bucket = 0;
    while (bucket < LATENCY_BOUNDS.length && seconds > LATENCY_BOUNDS[bucket]!) {
      bucket++;
    }
    latencies.counts[bucket]!++;
    latencies.sum += seconds;
  }

  effect(effect: object): void {
    const { type, outcome } = effect as { type?: string; outcome?: string };
    if (type === 'endEnable' && (outcome === 'enabled' || outcome === 'failed')) {
      this.#enables[outcome]++;
    }
  }

  host(name: string, _detail: object, _milliseconds?: number, error?: string): void {
    if (error !== undefined) {
      count(this.#hostFailures, name);
    }
  }

  /** Only accesses to config space are answered late, and others came since. */
  #accessKind(command: number, isLate: boolean): AccessKind {
    if (!isLate) {
      return this.#lastAccess;
    }
    return command === Command.regionRead ? 'config_read' : 'config_write';
  }

  #function(name: string): FunctionActivity {
    let of = this.#functions.get(name);
    if (of === undefined) {
      of = {
        accesses: { config_read: 0, config_write: 0, bar_read: 0, bar_write: 0 },
        dmaMaps: 0,
        dmaUnmaps: 0,
        interruptSetups: 0,
        deviceResets: 0,
        functionResets: 0,
      };
      this.#functions.set(name, of);
    }
    return of;
  }

  #latenciesOf(kind: string): Latencies {
    let latencies = this.#latencies.get(kind);
    if (latencies === undefined) {
      latencies = { counts: new Array<number>(LATENCY_BOUNDS.length + 1).fill(0), sum: 0 };
      this.#latencies.set(kind, latencies);
    }
    return latencies;
  }
}

function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

function nameOf(command: number): string {
  return COMMAND_NAMES.get(command) ?? UNKNOWN_COMMAND;
}
