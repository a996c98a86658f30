// Turns the trace of a device on and off.

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
import { DeviceTrace } from './device-trace.ts';
import { TraceRecorder } from './recorder.ts';
import { RingFile } from './ring-file.ts';

export interface TracingOptions {
  readonly description: DeviceDescription;
  readonly observers: Observers;
  readonly log: Log;
  /** Milliseconds of CLOCK_MONOTONIC, with fractions. */
  now(): number;
  /** The PF's config space as it is now. */
  pfConfig(): Uint8Array;
}

export class Tracing {
  readonly #options: TracingOptions;
  #file: RingFile | undefined;
  #trace: DeviceTrace | undefined;
  /** Of the recorder at hand, or of the last one. */
  #recorder: Pick<TraceRecorder, 'records' | 'bytes' | 'isWrapped'> = {
    records: 0,
    bytes: 0,
    isWrapped: false,
  };
  #failure: string | null = null;

  constructor(options: TracingOptions) {
    this.#options = options;
  }

  get state(): TraceState {
    const { records, bytes, isWrapped } = this.#recorder;
    return { on: this.#trace !== undefined, records, bytes, isWrapped, failure: this.#failure };
  }

  /** Records into a file as long as it is to become; takes over the fd. @throws WireError EBUSY, UserError */
  start(fd: number, isFromStart = false): void {
    if (this.#trace !== undefined) {
      closeFd(fd);
      throw new WireError('EBUSY', 'a trace is being recorded already; stop it first');
    }
    const { observers, now, log } = this.#options;
    const file = new RingFile(fd, this.#describe(isFromStart), now);
    const recorder = new TraceRecorder(file, now);
    const trace = new DeviceTrace(recorder, isFromStart, () => {
      this.#failure = file.failure ?? null;
      this.#forget();
      log.warn(`the trace ends: its file takes no more: ${file.failure}`);
    });
    this.#file = file;
    this.#recorder = recorder;
    this.#failure = null;
    if (!recorder.isOver) {
      this.#trace = trace;
      observers.add(trace);
    }
  }

  /** Ends the trace in good order; does nothing where there is none. */
  stop(): void {
    this.#trace?.end();
    this.#forget();
  }

  #forget(): void {
    if (this.#trace !== undefined) {
      this.#options.observers.remove(this.#trace);
    }
    this.#trace = undefined;
    this.#file?.close();
    this.#file = undefined;
  }

  #describe(isFromStart: boolean): TraceDescription {
    const { description, pfConfig } = this.#options;
    return describedForTrace(description, pfConfig(), isFromStart);
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
