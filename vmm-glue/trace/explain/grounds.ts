// What there is to judge by, taken from a trace's events as they come.

import type { NoteEvent, TraceEvent } from '../../../protocol/trace/events.ts';
import { IrqIndex } from '../../../protocol/vfio-user/commands.ts';

/** A rule says what of it it cannot do without. */
export interface Grounds {
  /** VFs sit in slots of a stock QEMU, or a VMM attaches them itself; undefined: nobody plugs VFs. */
  readonly mode: 'glue' | 'vmm' | undefined;
  /** The glue's pauses are in the trace. */
  readonly hasGlueEvents: boolean;
  /** Events are missing in the middle. */
  readonly hasGaps: boolean;
  /** What happened first is not in the trace. */
  readonly startsLate: boolean;
  /** The VMM has bound eventfds to MSI-X vectors, and so has the table. */
  readonly hasBoundVectors: boolean;
  /** The longest that VFs took to be up after VF Enable; nanoseconds, 0 where none were enabled. */
  readonly slowestEnable: number;
  /** Regions that were mapped, and so unseen, as `pf region 0`. */
  readonly unseen: readonly string[];
}

export class GroundsFinder {
  #mode: Grounds['mode'];
  #hasGlueEvents = false;
  #hasGaps = false;
  #startsLate = false;
  #hasBoundVectors = false;
  #enabledAt: number | undefined;
  #slowestEnable = 0;
  readonly #unseen = new Set<string>();
  #hasBegun = false;
  /** It matters once an access has followed. */
  #isGapLast = false;

  get grounds(): Grounds {
    return {
      mode: this.#mode,
      hasGlueEvents: this.#hasGlueEvents,
      hasGaps: this.#hasGaps,
      startsLate: this.#startsLate,
      hasBoundVectors: this.#hasBoundVectors,
      slowestEnable: this.#slowestEnable,
      unseen: [...this.#unseen],
    };
  }

  /** A glue stops the guest, and tells of it late. */
  get hasGlue(): boolean {
    return this.#mode === 'glue' || this.#hasGlueEvents;
  }

  see(event: TraceEvent): void {
    if (event.kind === 'access') {
      this.#hasGaps ||= this.#isGapLast;
    } else if (event.kind === 'session') {
      this.#session(event.detail);
    } else if (event.kind === 'mapped') {
      this.#unseen.add(`${event.function} region ${event.detail.region}`);
    } else if (event.kind === 'glue') {
      this.#hasGlueEvents = true;
    } else if (event.kind === 'setIrqs') {
      this.#hasBoundVectors ||= event.index === IrqIndex.msix && event.fds > 0;
    } else if (event.kind === 'step') {
      this.#step(event);
    }
    // A gap at the very start is what came before, and one at the end what came after: all between them is known.
    if (event.kind === 'gap' || (event.kind === 'glue' && event.detail.what === 'gap')) {
      this.#isGapLast ||= this.#hasBegun;
      this.#startsLate ||= !this.#hasBegun;
    }
    this.#hasBegun = true;
  }

  #step({ time, detail: { event, before, after } }: NoteEvent): void {
    if ((event as { type?: unknown } | undefined)?.type === 'vfEnableSet') {
      this.#enabledAt = time;
    }
    if (after === 'enabled' && before !== 'enabled' && this.#enabledAt !== undefined) {
      this.#slowestEnable = Math.max(this.#slowestEnable, time - this.#enabledAt);
    }
  }

  #session({ what, role, hotplug }: Readonly<Record<string, unknown>>): void {
    if (what !== 'agreed') {
      return;
    }
    if (role === 'glue' || (hotplug as { role?: unknown } | undefined)?.role === 'glue') {
      this.#mode = 'glue';
    } else if (hotplug !== undefined) {
      this.#mode ??= 'vmm';
    }
  }
}
