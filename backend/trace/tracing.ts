// Turns recordings of a device on and off: the one that there is one of, and those of clients that watch.

import { WireError } from '../../protocol/errno.ts';
import type { TraceState } from '../../protocol/hotplug/status.ts';
import type { Log } from '../../protocol/log.ts';
import type { TraceDescription, TracedFunction } from '../../protocol/trace/description.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import type { Observers } from '../device/observer.ts';
import type { DeviceDescription, FunctionShape } from '../device/physical-device.ts';
import { patchedImage } from '../pci/capability-chain.ts';
import {
  type AllowedCapabilities,
  PF_CAPABILITIES,
  VF_CAPABILITIES,
} from '../pci/spec/capability-ids.ts';
import { type PresentSession, Recording } from './recording.ts';

export interface TracingOptions {
  readonly description: DeviceDescription;
  readonly observers: Observers;
  readonly log: Log;
  /** Milliseconds of CLOCK_MONOTONIC, with fractions. */
  now(): number;
  /** The PF's config space as it is now. */
  pfConfig(): Uint8Array;
  /** Who is connected now. */
  sessions(): readonly PresentSession[];
}

export class Tracing {
  readonly #options: TracingOptions;
  #isOn = false;
  /** The one at hand, or the last one. */
  #recording: Recording | undefined;
  #failure: string | null = null;

  constructor(options: TracingOptions) {
    this.#options = options;
  }

  get state(): TraceState {
    const { records = 0, bytes = 0, isWrapped = false, path = null } = this.#recording ?? {};
    return { on: this.#isOn, records, bytes, isWrapped, path, failure: this.#failure };
  }

  /** Records into a file as long as it is to become; takes over the fd. @throws WireError EBUSY, UserError */
  start(fd: number, isFromStart = false): void {
    if (this.#isOn) {
      closeFd(fd);
      throw new WireError('EBUSY', 'a trace is being recorded already', { fix: 'stop it first' });
    }
    this.#isOn = true;
    this.#failure = null;
    try {
      this.#recording = this.#record(fd, isFromStart, (why) => {
        this.#isOn = false;
        this.#failure = why;
        this.#options.log.warn(`the trace ends: its file takes no more: ${why}`);
      });
    } catch (error) {
      this.#isOn = false;
      throw error;
    }
  }

  /** Ends the trace in good order; does nothing where there is none. */
  stop(): void {
    if (this.#isOn) {
      this.#isOn = false;
      this.#recording?.end();
    }
  }

  /** Records beside the trace, for a client that watches; gives what ends it. Takes over the fd. @throws UserError */
  watch(fd: number): () => void {
    let isOver = false;
    const recording = this.#record(fd, false, () => {
      isOver = true;
    });
    return () => {
      if (!isOver) {
        recording.end();
      }
    };
  }

  #record(fd: number, isFromStart: boolean, failed: (why: string) => void): Recording {
    const { description, observers, now, pfConfig, sessions } = this.#options;
    return new Recording({
      fd,
      description: describedForTrace(description, pfConfig(), isFromStart),
      present: isFromStart ? [] : sessions(),
      observers,
      now,
      failed,
    });
  }
}

/** What a trace says of a device whose PF's config space is `pfConfig` at its beginning. */
export function describedForTrace(
  { name, totalVfs, pf, vf }: DeviceDescription,
  pfConfig: Uint8Array,
  isFromStart: boolean,
): TraceDescription {
  return {
    device: name,
    totalVfs,
    isFromStart,
    pf: tracedFunction(pf, pfConfig, PF_CAPABILITIES),
    vf: tracedFunction(vf, vf.config, VF_CAPABILITIES),
  };
}

function tracedFunction(
  shape: FunctionShape,
  config: Uint8Array,
  allowed: AllowedCapabilities,
): TracedFunction {
  return {
    config: Buffer.from(patchedImage(config, allowed)).toString('base64'),
    regions: shape.regions.map(({ index, size }) => ({ index, size })),
    mappable: shape.regions.filter(({ mappable }) => mappable.length > 0).map(({ index }) => index),
    tables: shape.barTables ?? [],
  };
}
