// One recording that is being made: an observer of the device and the file that it fills, until somebody ends it or the
// file takes no more.

import type { TraceDescription } from '../../protocol/trace/description.ts';
import type { Observers, SessionDetail } from '../device/observer.ts';
import { DeviceTrace } from './device-trace.ts';
import { TraceRecorder } from './recorder.ts';
import { RingFile } from './ring-file.ts';

/** A client that was there before the recording: its function, and what was agreed on with it. */
export interface PresentSession {
  readonly name: string;
  readonly detail: SessionDetail;
}

export interface RecordingOptions {
  /** As long as the recording is to become; taken over. */
  readonly fd: number;
  readonly description: TraceDescription;
  readonly present: readonly PresentSession[];
  readonly observers: Observers;
  /** Milliseconds of CLOCK_MONOTONIC, with fractions. */
  now(): number;
  /** The file takes no more. */
  failed(why: string): void;
}

export class Recording {
  readonly #observers: Observers;
  readonly #file: RingFile;
  readonly #recorder: TraceRecorder;
  readonly #trace: DeviceTrace;

  /** @throws UserError where the file will not do */
  constructor(options: RecordingOptions) {
    const { fd, description, present, observers, now, failed } = options;
    this.#observers = observers;
    this.#file = new RingFile(fd, description, now);
    this.#recorder = new TraceRecorder(this.#file, now);
    this.#trace = new DeviceTrace(this.#recorder, description.isFromStart, () => {
      this.#forget();
      failed(this.#file.failure ?? 'unknown');
    });
    for (const { name, detail } of present) {
      this.#trace.session(name, 'agreed', detail);
    }
    this.#trace.turnEnded();
    if (!this.#recorder.isOver) {
      observers.add(this.#trace);
    }
  }

  /** Where the file is; null where it has no name. */
  get path(): string | null {
    return this.#file.path;
  }

  get records(): number {
    return this.#recorder.records;
  }

  /** Of all records, with their blocks' headers. */
  get bytes(): number {
    return this.#recorder.bytes;
  }

  get isWrapped(): boolean {
    return this.#recorder.isWrapped;
  }

  /** Ends it in good order; once. */
  end(): void {
    this.#trace.end();
    if (!this.#recorder.isOver) {
      this.#forget();
    }
  }

  #forget(): void {
    this.#observers.remove(this.#trace);
    this.#file.close();
  }
}
