// A recording that is being made, as one sees it who looks now and then: what the driver did against the standard, and the
// last that was done to config space.

import { RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { line, NO_COLOURS } from '../reading/lines.ts';
import { type NamedEvent, Naming } from '../reading/naming.ts';
import { TraceFile } from '../reading/trace-file.ts';
import { Judgement } from './judgement.ts';
import type { Finding } from './rule.ts';

/** Of a recording that is longer, the newest: to read it takes half a second. */
const MOST_BYTES = 8 * 2 ** 20;

export class LiveTrace {
  readonly #file: TraceFile;
  readonly #judgement: Judgement;
  readonly #naming: Naming;
  readonly #mostLines: number;
  #recent: NamedEvent[] = [];
  #hasLooked = false;

  /** `mostLines`: how many of the last events are kept. @throws UserError where the file cannot be read */
  constructor(path: string, mostLines = 0) {
    this.#file = new TraceFile(path, { mostBytes: MOST_BYTES });
    this.#judgement = new Judgement(this.#file.description, this.#file.startedMonotonic);
    this.#naming = new Naming(this.#file.description);
    this.#mostLines = mostLines;
  }

  /** Reads what was recorded since; `now` is nanoseconds of CLOCK_MONOTONIC. */
  look(now: bigint): void {
    for (const event of this.#hasLooked ? this.#file.more() : this.#file.events()) {
      this.#judgement.see(event);
      if (this.#mostLines > 0) {
        this.#keep(this.#naming.name(event));
      }
    }
    this.#hasLooked = true;
    this.#judgement.until(Number(now) - this.#file.startedMonotonic);
  }

  /** The file holds another recording by now, or none. */
  get isReplaced(): boolean {
    return this.#file.isReplaced;
  }

  /** The newest finding. */
  get finding(): Finding | undefined {
    return this.#judgement.last;
  }

  /** The last accesses to config space, resets and phases, as `trace` prints them. */
  get lines(): string[] {
    return this.#recent.slice(-this.#mostLines).map((named) => line(named, NO_COLOURS));
  }

  close(): void {
    this.#file.close();
  }

  #keep(named: readonly NamedEvent[]): void {
    this.#recent.push(...named.filter(isShown));
    if (this.#recent.length > 64 * this.#mostLines) {
      this.#recent = this.#recent.slice(-this.#mostLines);
    }
  }
}

function isShown({ event }: NamedEvent): boolean {
  return event.kind === 'access'
    ? event.region === RegionIndex.config
    : event.kind === 'reset' ||
        (event.kind === 'step' && event.detail.before !== event.detail.after);
}
