// Names what a trace holds: each access by the tables of its function's config space and BARs, everything else in words.

import {
  type DecodedRegister,
  decodeAccess,
  describeRegister,
  SeenBytes,
} from '../../../backend/pci/decode.ts';
import { barMap, configMap, type RegisterMap } from '../../../backend/pci/register-map.ts';
import { forgetVf, takesVfsAway } from '../../../backend/pci/seen-vf.ts';
import { errnoName } from '../../../protocol/errno.ts';
import type { TraceDescription, TracedFunction } from '../../../protocol/trace/description.ts';
import {
  type AccessEvent,
  glueTime,
  type NoteEvent,
  type TraceEvent,
} from '../../../protocol/trace/events.ts';
import { isCarrier } from '../../../protocol/trace/format.ts';
import { IrqIndex, RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { DmaFlag, IrqSetFlag } from '../../../protocol/vfio-user/messages.ts';
import { seconds } from './lines.ts';

/** One line of a trace: `what` is a register or a kind of event, `text` what happened to it. */
export interface NamedEvent {
  readonly event: TraceEvent;
  readonly what: string;
  readonly text: string;
  /** Of an access: the register it touched. */
  readonly decoded?: DecodedRegister;
}

/** A carrier has the header of any function, and memory of its VF behind its BARs. */
type Kind = 'pf' | 'vf' | 'carrier';

const CARRIER = { config: '', tables: [] } as const;

interface FunctionState {
  readonly kind: Kind;
  readonly seen: Map<number, SeenBytes>;
}

export class Naming {
  readonly #description: TraceDescription;
  readonly #startedMonotonic: number | undefined;
  readonly #maps = new Map<string, RegisterMap>();
  readonly #functions = new Map<string, FunctionState>();

  /** `startedMonotonic` is the trace's, in nanoseconds: with it, it is said when a glue did what it tells of late. */
  constructor(description: TraceDescription, startedMonotonic?: number) {
    this.#description = description;
    this.#startedMonotonic = startedMonotonic;
  }

  /** The event's lines, more than one where an access spans registers; must be given every event in order. */
  name(event: TraceEvent): NamedEvent[] {
    switch (event.kind) {
      case 'access':
        return this.#access(event);
      case 'gap':
        this.#functions.forEach(({ seen }) => {
          seen.clear();
        });
        return [{ event, what: 'gap', text: gapText(event.lost, event.isFailure) }];
      case 'reset':
        this.#functions.delete(event.function);
        return [{ event, what: 'reset', text: String(event.detail.kind) }];
      case 'session':
        // A VF that is attached again starts anew; of a PF only VF Enable has gone, and its next VMM resets it.
        if (event.function !== 'pf' && event.detail.what === 'gone') {
          this.#functions.delete(event.function);
        }
        return [{ event, what: event.kind, text: describe(event) }];
      case 'step':
        if (takesVfsAway(event.detail.before, event.detail.after)) {
          this.#vfsGone();
        }
        return [{ event, what: event.kind, text: describe(event) }];
      case 'glue':
        return [{ event, what: event.kind, text: `${describe(event)}${this.#when(event)}` }];
      default:
        return [{ event, what: event.kind, text: describe(event) }];
    }
  }

  #when(event: NoteEvent): string {
    const at = glueTime(event, this.#startedMonotonic ?? Number.NaN);
    return at >= 0 ? `, at ${seconds(at)}` : '';
  }

  /** The registers of a region of `pf`, `vf0`, `carrier0`, … */
  map(functionName: string, region: number): RegisterMap {
    const kind = kindOf(functionName);
    const key = `${kind} ${region}`;
    const known = this.#maps.get(key);
    if (known !== undefined) {
      return known;
    }
    const traced = kind === 'carrier' ? CARRIER : this.#description[kind];
    const config = configOf(traced);
    const tables = traced.tables.filter((table) => table.region === region);
    const map =
      region === RegionIndex.config
        ? configMap(config, kind === 'vf' ? 'vf' : 'pf')
        : barMap(region, tables, config);
    this.#maps.set(key, map);
    return map;
  }

  #access(event: AccessEvent): NamedEvent[] {
    const map = this.map(event.function, event.region);
    if (event.data.length === 0) {
      const text = `${event.length} bytes, of which none were recorded`;
      return [{ event, what: map.pieces(event.offset, 1)[0]!.name, text }];
    }
    const decoded = decodeAccess(map, this.#seen(event.function, event.region), {
      isWrite: event.isWrite,
      offset: event.offset,
      bytes: event.data,
    });
    if (decoded.length > 16) {
      const [first] = decoded;
      const text = `${event.length} bytes from ${first!.name} on`;
      return [{ event, what: `${map.space}, all of it`, text }];
    }
    return decoded.map((each) => ({
      event,
      what: each.name,
      text: describeRegister(each, event.isWrite),
      decoded: each,
    }));
  }

  #vfsGone(): void {
    const image = this.#description.isFromStart ? configOf(this.#description.vf) : undefined;
    for (const { kind, seen } of this.#functions.values()) {
      if (kind === 'vf') {
        forgetVf(seen, RegionIndex.config, image);
      }
    }
  }

  #seen(functionName: string, region: number): SeenBytes {
    let state = this.#functions.get(functionName);
    if (state === undefined) {
      const kind = kindOf(functionName);
      const seen = new Map<number, SeenBytes>();
      if (kind === 'pf' || (kind === 'vf' && this.#description.isFromStart)) {
        seen.set(RegionIndex.config, new SeenBytes(configOf(this.#description[kind])));
      }
      state = { kind, seen };
      this.#functions.set(functionName, state);
    }
    let bytes = state.seen.get(region);
    if (bytes === undefined) {
      bytes = new SeenBytes();
      state.seen.set(region, bytes);
    }
    return bytes;
  }
}

function kindOf(functionName: string): Kind {
  if (functionName === 'pf') {
    return 'pf';
  }
  return isCarrier(functionName) ? 'carrier' : 'vf';
}

/** The config space that a trace holds of a function. */
export function configOf(traced: Pick<TracedFunction, 'config'>): Uint8Array {
  return new Uint8Array(Buffer.from(traced.config, 'base64'));
}

function gapText(lost: number | undefined, isDamage: boolean): string {
  if (isDamage) {
    return 'the file is damaged here: what follows may lack its beginning';
  }
  return lost === undefined ? 'events are missing before this one' : `${lost} events are missing`;
}

type Other = Exclude<TraceEvent, { kind: 'access' | 'gap' }>;

function describe(event: Other): string {
  switch (event.kind) {
    case 'answer': {
      const outcome = event.errno === 0 ? 'granted' : errnoName(event.errno);
      return `${event.of} ${outcome} after ${milliseconds(event.waited)}`;
    }
    case 'dmaMap':
    case 'dmaUnmap': {
      const { address, size, flags, fds } = event;
      const rights = `${flags & DmaFlag.read ? 'r' : '-'}${flags & DmaFlag.write ? 'w' : '-'}`;
      const range = `0x${address.toString(16)} + 0x${size.toString(16)}`;
      return event.kind === 'dmaUnmap'
        ? range
        : `${range} ${rights}${fds === 0 ? ', no file' : ''}`;
    }
    case 'setIrqs': {
      const { index, start, count, flags, fds } = event;
      const name = nameIn(IrqIndex, index);
      const action = nameOfAction(flags);
      return `${name} ${action} vectors ${start}..${start + count - 1}, ${fds} eventfds`;
    }
    default:
      return describeNote(event);
  }
}

function describeNote({ kind, detail }: NoteEvent): string {
  switch (kind) {
    case 'step': {
      const { event, before, after } = detail as {
        event?: object;
        before?: string;
        after?: string;
      };
      return `${before} → ${after}: ${words(event ?? {})}`;
    }
    case 'message': {
      const { command, took, errno } = detail;
      const outcome = errno === 0 ? '' : `, ${errnoName(Number(errno))}`;
      return `${command} answered after ${Number(took).toFixed(3)} ms${outcome}`;
    }
    case 'glue':
      return detail.what === 'gap'
        ? `gap: ${detail.why}${detail.lost === undefined ? '' : `, ${detail.lost} commands`}`
        : `${detail.text} answered after ${Number(detail.took).toFixed(3)} ms`;
    case 'mapped':
      return `region ${detail.region} can be mapped from here on: accesses to it are not seen`;
    case 'host': {
      const { name, took, error, ...rest } = detail;
      const facts = words(rest);
      const outcome =
        took === undefined
          ? 'asked'
          : `${error === undefined ? 'done' : `failed: ${error}`} after ${Number(took).toFixed(3)} ms`;
      return `${name} ${outcome}${facts === '' ? '' : `, ${facts}`}`;
    }
    default:
      return words(detail);
  }
}

/** `{type: 'plugVfs', count: 2}` as "plugVfs, count 2". */
function words(detail: object): string {
  return Object.entries(detail)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([name, value]) => {
      const text = typeof value === 'object' ? JSON.stringify(value) : String(value);
      // A number for a name: the place of an argument.
      const isPlain = ['type', 'what', 'message', 'command'].includes(name) || /^\d+$/.test(name);
      return isPlain ? text : `${name} ${text}`;
    })
    .join(', ');
}

function nameIn(names: Readonly<Record<string, number>>, value: number): string {
  return (
    Object.entries(names)
      .find(([, each]) => each === value)?.[0]
      .toUpperCase() ?? `index ${value}`
  );
}

function nameOfAction(flags: number): string {
  const data = flags & IrqSetFlag.dataGroup;
  const source =
    { [IrqSetFlag.dataNone]: 'none', [IrqSetFlag.dataBool]: 'bool' }[data] ?? 'eventfd';
  const action =
    { [IrqSetFlag.actionMask]: 'mask', [IrqSetFlag.actionUnmask]: 'unmask' }[
      flags & IrqSetFlag.actionGroup
    ] ?? 'trigger';
  return `${action} (${source})`;
}

/** Nanoseconds for people. */
export function milliseconds(nanoseconds: number): string {
  return `${(nanoseconds / 1e6).toFixed(3)} ms`;
}
