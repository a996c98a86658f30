// A trace as a timeline: lanes, marks on them, stretches of time, and arrows from a guest's write to what came of it.

import { fieldOf } from '../../../backend/pci/registers.ts';
import { SRIOV } from '../../../backend/pci/spec/sriov.ts';
import type { TraceDescription } from '../../../protocol/trace/description.ts';
import type { TraceEvent } from '../../../protocol/trace/events.ts';
import { isCarrier } from '../../../protocol/trace/format.ts';
import { RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { standstills } from '../explain/guest-time.ts';
import { seconds } from '../reading/lines.ts';
import { type NamedEvent, Naming } from '../reading/naming.ts';

/** Kinds of marks, which decide their colour. */
export const MARK_KINDS = ['read', 'write', 'failure', 'reset', 'message', 'host', 'step'] as const;
export type MarkKind = (typeof MARK_KINDS)[number];

/** Columns, one entry a mark, in order of time; texts are indexes into `texts`. */
export interface Marks {
  /** Nanoseconds since the trace began. */
  readonly time: number[];
  readonly lane: number[];
  readonly kind: number[];
  readonly what: number[];
  readonly text: number[];
}

/** Nanoseconds since the trace began. */
export interface Stretch {
  readonly lane: number;
  readonly from: number;
  readonly to: number;
  readonly text: string;
  readonly style: 'phase' | 'up' | 'host' | 'standstill';
}

export interface Arrow {
  readonly from: { readonly lane: number; readonly time: number };
  readonly to: { readonly lane: number; readonly time: number };
}

export interface Timeline {
  readonly title: string;
  readonly lanes: readonly string[];
  readonly texts: readonly string[];
  readonly marks: Marks;
  readonly stretches: readonly Stretch[];
  readonly arrows: readonly Arrow[];
  /** Of the first event and of the last; of a ring that went around, the first is late. */
  readonly start: number;
  readonly end: number;
}

const FIXED_LANES = ['phase', 'host', 'guest stands still', 'machine', 'pf'] as const;
const [PHASE, HOST, STANDSTILL, MACHINE, PF] = [0, 1, 2, 3, 4];
const SR_IOV_CONTROL = 'SR-IOV Control';

export function timelineOf(
  events: readonly TraceEvent[],
  description: TraceDescription,
  startedMonotonic: number,
): Timeline {
  return new Builder(events, description, startedMonotonic).build();
}

class Builder {
  readonly #events: readonly TraceEvent[];
  readonly #description: TraceDescription;
  readonly #startedMonotonic: number;
  readonly #lanes: string[];
  readonly #texts: string[] = [];
  readonly #textIndex = new Map<string, number>();
  readonly #marks: Marks = { time: [], lane: [], kind: [], what: [], text: [] };
  readonly #stretches: Stretch[] = [];
  readonly #arrows: Arrow[] = [];
  readonly #start: number;
  readonly #end: number;

  constructor(
    events: readonly TraceEvent[],
    description: TraceDescription,
    startedMonotonic: number,
  ) {
    this.#events = events;
    this.#description = description;
    this.#startedMonotonic = startedMonotonic;
    this.#end = events.reduce((end, { time }) => Math.max(end, time), 1);
    this.#start = events.reduce((start, { time }) => Math.min(start, time), this.#end - 1);
    const vfs = new Set(
      events.map((event) => event.function).filter((name) => /^vf\d+$/.test(name)),
    );
    const inOrder = [...vfs].sort((one, other) => Number(one.slice(2)) - Number(other.slice(2)));
    this.#lanes = [...FIXED_LANES, ...inOrder];
  }

  build(): Timeline {
    const naming = new Naming(this.#description, this.#startedMonotonic);
    for (const event of this.#events) {
      for (const named of naming.name(event)) {
        this.#mark(named);
      }
    }
    this.#phases();
    this.#hostWork();
    this.#enables(naming);
    for (const { from, to, why } of standstills(this.#events, this.#startedMonotonic)) {
      const text = why === 'answer' ? 'waits for an answer' : 'stopped by the glue';
      this.#stretches.push({ lane: STANDSTILL!, from, to, text, style: 'standstill' });
    }
    return {
      title: this.#description.device,
      lanes: this.#lanes,
      texts: this.#texts,
      marks: this.#marks,
      stretches: this.#stretches,
      arrows: this.#arrows,
      start: this.#start,
      end: this.#end,
    };
  }

  #mark(named: NamedEvent): void {
    const { event } = named;
    const { time, lane, kind, what, text } = this.#marks;
    time.push(Math.round(event.time));
    lane.push(this.#laneOf(event));
    kind.push(MARK_KINDS.indexOf(kindOf(event)));
    what.push(this.#text(named.what));
    // A carrier has no lane of its own.
    const owner = isCarrier(event.function) ? `${event.function}: ` : '';
    text.push(this.#text(`${owner}${named.text}`));
  }

  #laneOf(event: TraceEvent): number {
    if (event.kind === 'host') {
      return HOST!;
    }
    const lane = this.#lanes.indexOf(event.function);
    return event.function === '' || lane < 0 ? MACHINE! : lane;
  }

  #text(text: string): number {
    let index = this.#textIndex.get(text);
    if (index === undefined) {
      index = this.#texts.length;
      this.#texts.push(text);
      this.#textIndex.set(text, index);
    }
    return index;
  }

  #phases(): void {
    let phase: string | undefined;
    let since = this.#start;
    let count = 0;
    const end = (time: number): void => {
      if (phase !== undefined && phase !== 'disabled') {
        const style = phase === 'enabled' ? 'up' : 'phase';
        this.#stretches.push({ lane: PHASE!, from: since, to: time, text: phase, style });
      }
      for (let vf = 0; phase === 'enabled' && vf < count; vf++) {
        const lane = this.#lanes.indexOf(`vf${vf}`);
        if (lane >= 0) {
          this.#stretches.push({ lane, from: since, to: time, text: 'up', style: 'up' });
        }
      }
    };
    for (const event of this.#events) {
      if (event.kind === 'effect' && event.detail.type === 'createVfs') {
        count = Number(event.detail.count);
      }
      if (event.kind === 'step' && event.detail.before !== event.detail.after) {
        // Of a recording that begins late, the first step says what was before.
        phase ??= String(event.detail.before);
        end(event.time);
        phase = String(event.detail.after);
        since = event.time;
      }
    }
    end(this.#end);
  }

  #hostWork(): void {
    for (const event of this.#events) {
      if (event.kind === 'host' && typeof event.detail.took === 'number') {
        const from = event.time - event.detail.took * 1e6;
        const text = String(event.detail.name);
        this.#stretches.push({ lane: HOST!, from, to: event.time, text, style: 'host' });
      }
    }
  }

  /** From VF Enable to the host, to each VF that is up, to the guest's first look at it. */
  #enables(naming: Naming): void {
    const control = naming
      .map('pf', RegionIndex.config)
      .registers.find(({ name }) => name === SR_IOV_CONTROL);
    let write: number | undefined;
    let host: number | undefined;
    let up: number | undefined;
    let seen = new Set<string>();
    for (const event of this.#events) {
      if (event.kind === 'access') {
        const isControl =
          event.function === 'pf' &&
          event.region === RegionIndex.config &&
          event.offset === control?.offset;
        const enable = fieldOf(SRIOV.control, 'vfEnable', event.data[0] ?? 0);
        if (isControl && event.isWrite && enable === 1) {
          write = event.time;
          host = undefined;
          up = undefined;
          seen = new Set();
        } else if (
          up !== undefined &&
          event.function.startsWith('vf') &&
          !seen.has(event.function)
        ) {
          seen.add(event.function);
          this.#arrow(PHASE!, up, this.#lanes.indexOf(event.function), event.time);
        }
      } else if (
        event.kind === 'host' &&
        event.detail.name === 'createVfs' &&
        write !== undefined
      ) {
        if (event.detail.took === undefined) {
          this.#arrow(PF!, write, HOST!, event.time);
        }
        host = event.time;
      } else if (event.kind === 'step' && event.detail.after === 'enabled' && host !== undefined) {
        if (up === undefined) {
          this.#arrow(HOST!, host, PHASE!, event.time);
          up = event.time;
        }
      } else if (event.kind === 'step' && event.detail.before === 'enabled') {
        write = undefined;
        up = undefined;
      }
    }
  }

  #arrow(fromLane: number, from: number, toLane: number, to: number): void {
    this.#arrows.push({ from: { lane: fromLane, time: from }, to: { lane: toLane, time: to } });
  }
}

function kindOf(event: TraceEvent): MarkKind {
  const isGlueGap = event.kind === 'glue' && event.detail.what === 'gap';
  if (event.isFailure || event.kind === 'gap' || isGlueGap) {
    return 'failure';
  }
  switch (event.kind) {
    case 'access':
      return event.isWrite ? 'write' : 'read';
    case 'reset':
    case 'host':
    case 'step':
      return event.kind;
    default:
      return 'message';
  }
}

/** "12.345 s of loopback, 4 lanes": what a page is called. */
export function titleOf(timeline: Timeline): string {
  return `${timeline.title}: ${seconds(timeline.end - timeline.start)} s, ${timeline.marks.time.length} events`;
}
