// The observer that records: what happens to the device becomes records of its trace.

import { EventKind, functionNumberOf, NO_FUNCTION } from '../../protocol/trace/format.ts';
import { Command, commandName } from '../../protocol/vfio-user/commands.ts';
import type {
  DeviceObserver,
  ObservedGlueEvent,
  ObservedWindow,
  SessionDetail,
} from '../device/observer.ts';
import type { IrqRequest } from '../device/physical-device.ts';
import type { TraceRecorder } from './recorder.ts';

/** Commands that have records of their own; the rest are `message` records. */
const KIND_OF_COMMAND: ReadonlyMap<number, EventKind> = new Map<number, EventKind>([
  [Command.regionRead, EventKind.access],
  [Command.regionWrite, EventKind.access],
  [Command.regionWriteMulti, EventKind.access],
  [Command.dmaMap, EventKind.dmaMap],
  [Command.dmaUnmap, EventKind.dmaUnmap],
  [Command.deviceSetIrqs, EventKind.setIrqs],
  [Command.deviceReset, EventKind.reset],
]);

export class DeviceTrace implements DeviceObserver {
  readonly #recorder: TraceRecorder;
  /** `stopped` is called once, when the file takes no more. */
  readonly #stopped: () => void;
  readonly #numbers = new Map<string, number>();
  #isStopped = false;
  /** VFs were enabled, so that a glue would have had something to do. */
  #hasStepped = false;

  constructor(recorder: TraceRecorder, isFromStart: boolean, stopped: () => void) {
    this.#recorder = recorder;
    this.#stopped = stopped;
    if (!isFromStart) {
      recorder.gap(0);
    }
    recorder.note(EventKind.trace, NO_FUNCTION, { what: 'started' });
    this.turnEnded();
  }

  /** The last record, and everything before it, is in the file when this returns. */
  end(): void {
    this.#recorder.note(EventKind.trace, NO_FUNCTION, { what: 'ended' });
    this.turnEnded();
  }

  access(name: string, isWrite: boolean, region: number, offset: number, data: Uint8Array): void {
    this.#recorder.access(this.#number(name), isWrite, region, offset, data);
  }

  dma(name: string, isMap: boolean, window: ObservedWindow): void {
    this.#recorder.dma(this.#number(name), isMap, window);
  }

  setIrqs(name: string, { index, start, count, flags, eventFds }: IrqRequest): void {
    const fds = eventFds?.length ?? 0;
    this.#recorder.setIrqs(this.#number(name), { index, start, count, flags, fds });
  }

  reset(name: string, kind: 'device' | 'function'): void {
    this.#recorder.note(EventKind.reset, this.#number(name), { kind });
  }

  mapped(name: string, region: number): void {
    this.#recorder.note(EventKind.mapped, this.#number(name), { region });
  }

  session(name: string, what: 'agreed' | 'gone', detail: SessionDetail): void {
    this.#recorder.note(EventKind.session, this.#number(name), { what, ...detail });
    if (detail.role !== 'glue') {
      return;
    }
    if (what === 'gone') {
      this.#glueGap(
        'the glue has gone: what is done in the VMM’s monitor from here on is not seen',
      );
    } else if (this.#hasStepped) {
      this.#glueGap('a glue has come: what was done in the VMM’s monitor before it is not seen');
    }
  }

  #glueGap(why: string, lost?: number): void {
    this.#recorder.note(EventKind.glue, NO_FUNCTION, { what: 'gap', why, lost });
  }

  answered(
    name: string,
    command: number,
    milliseconds: number,
    errno: number,
    isLate: boolean,
  ): void {
    const kind = KIND_OF_COMMAND.get(command);
    if (isLate || (errno !== 0 && kind !== undefined)) {
      const of = kind ?? EventKind.message;
      this.#recorder.answer(this.#number(name), of, milliseconds, errno);
    } else if (kind === EventKind.access) {
      this.#recorder.took(milliseconds);
    } else if (kind === undefined) {
      const detail = { command: commandName(command), took: milliseconds, errno };
      this.#recorder.note(EventKind.message, this.#number(name), detail, errno !== 0);
    }
  }

  hotplug(direction: 'sent' | 'received', message: string, detail: object): void {
    this.#recorder.note(EventKind.hotplug, NO_FUNCTION, { direction, message, ...detail });
  }

  step(event: object, before: string, after: string): void {
    // A VMM resets the PF before its guest runs: that changes nothing, and no glue has missed it.
    this.#hasStepped ||= before !== after;
    this.#recorder.note(EventKind.step, NO_FUNCTION, { event, before, after });
  }

  effect(effect: object): void {
    this.#recorder.note(EventKind.effect, NO_FUNCTION, effect);
  }

  host(name: string, detail: object, milliseconds?: number, error?: string): void {
    const note = { name, ...detail, took: milliseconds, error };
    this.#recorder.note(EventKind.host, NO_FUNCTION, note, error !== undefined);
  }

  glue(events: readonly ObservedGlueEvent[], lost: number): void {
    if (lost > 0) {
      this.#glueGap('more was done in the VMM’s monitor than was told', lost);
    }
    for (const event of events) {
      this.#recorder.note(EventKind.glue, NO_FUNCTION, event);
    }
  }

  answering(): void {
    this.#recorder.flush();
  }

  turnEnded(): void {
    this.#recorder.flush();
    if (this.#recorder.isOver && !this.#isStopped) {
      this.#isStopped = true;
      this.#stopped();
    }
  }

  #number(name: string): number {
    const known = this.#numbers.get(name);
    if (known !== undefined) {
      return known;
    }
    const number = functionNumberOf(name);
    this.#numbers.set(name, number);
    return number;
  }
}
