// The SR-IOV machine: from what the guest, the VMM and the host did, to what is to be done next.
// Pure: `step(state, event, limits)` gives the next state and the effects, which backend/sriov/runner.ts carries out in order.
//
//                    vfEnableSet            vfsCreated            all plugs answered
//        disabled ───────────────> creating ──────────> plugging ───────────────────> enabled
//           ^ ^                       │ createFailed       │ refused, deadline           │
//           │ └───────────────────────┘                    v      vfEnableCleared        │
//           │                                          unplugging <──────────────────────┘
//           │ vfsDestroyed                                 │ all unplugs answered
//           │                    none held                 v              deadline, or still held
//        destroying <────────────────────────────────── releasing ─────────────────────> quarantined
//                                                          ^                                  │
//                                                          └────────── retryDue ──────────────┘
//
// NumVFs is latched once, on leaving `disabled`; teardown uses the latched count. A wish to enable that comes while an
// earlier set of VFs is still being taken down waits in `wish`. Every enable has a generation of its own, so that
// answers and timers of an earlier one are recognised and ignored.

/** Why VFs are taken away; the words of VfUnplug. */
export type UnplugReason = 'guestDisabled' | 'pfReset' | 'vfLost' | 'shuttingDown';

/** A VF that is not free: its index, and who holds it as far as that is known. */
export interface Holder {
  readonly vfIndex: number;
  readonly holder: string;
}

/** An enable that waits until the VFs before it are gone. */
export interface Wish {
  readonly count: number;
  readonly generation: number;
}

interface Vfs {
  /** NumVFs as latched when the guest set VF Enable. */
  readonly count: number;
  readonly generation: number;
  /** The highest generation given out so far. */
  readonly lastGeneration: number;
}

export type State =
  /** `failure`: why the guest's last enable has no VFs, where it had none. */
  | { readonly phase: 'disabled'; readonly lastGeneration: number; readonly failure?: string }
  /** `cancelled`: the VFs are taken away again as soon as the host has made them. */
  | ({
      readonly phase: 'creating';
      readonly cancelled: boolean;
      readonly wish?: Wish;
      readonly failure?: string;
    } & Vfs)
  | ({ readonly phase: 'plugging'; readonly unanswered: readonly number[] } & Vfs)
  | ({ readonly phase: 'enabled' } & Vfs)
  | ({
      readonly phase: 'unplugging';
      readonly unanswered: readonly number[];
      readonly wish?: Wish;
      readonly failure?: string;
    } & Vfs)
  | ({ readonly phase: 'releasing'; readonly wish?: Wish; readonly failure?: string } & Vfs)
  | ({
      readonly phase: 'quarantined';
      /** VFs whose VfUnplug the VMM has not answered. */
      readonly unanswered: readonly number[];
      readonly held: readonly Holder[];
      readonly failure: string;
    } & Vfs)
  | ({ readonly phase: 'destroying'; readonly wish?: Wish; readonly failure?: string } & Vfs);

export type Phase = State['phase'];

export type Event =
  /** The guest set VF Enable. `obstacle`: why no VF can be brought into the VM just now, where that is so. */
  | { readonly type: 'vfEnableSet'; readonly numVfs: number; readonly obstacle?: string }
  /** VF Enable went from 1 to 0, by the guest, by a reset or because everything ends. */
  | { readonly type: 'vfEnableCleared'; readonly reason: UnplugReason }
  | { readonly type: 'vfsCreated' }
  | { readonly type: 'createFailed'; readonly text: string }
  /** The host made the VFs, but one of them cannot be used here. */
  | { readonly type: 'bringUpFailed'; readonly text: string }
  | {
      readonly type: 'plugAnswered';
      readonly vfIndex: number;
      readonly generation: number;
      readonly refusal?: string;
    }
  | {
      readonly type: 'unplugAnswered';
      readonly vfIndex: number;
      readonly generation: number;
      readonly refusal?: string;
    }
  /** `vmmHolds`: an unanswered VfUnplug means that the VMM may still have the VF open (native VFs, not slots). */
  | {
      readonly type: 'unplugDeadlinePassed';
      readonly generation: number;
      readonly vmmHolds: boolean;
    }
  | { readonly type: 'plugDeadlinePassed'; readonly generation: number }
  | { readonly type: 'retryDue'; readonly generation: number }
  | { readonly type: 'vfsReleased'; readonly held: readonly Holder[] }
  | { readonly type: 'vfsDestroyed' }
  | { readonly type: 'destroyFailed'; readonly text: string }
  /** The one who plugs VFs has disconnected: whatever it still owed an answer for is settled. */
  | { readonly type: 'peerDetached' }
  /** The kernel wants a VF back. */
  | { readonly type: 'vfLost'; readonly vfIndex: number };

/** The events that a timer may bring. */
export type TimerEvent = 'plugDeadlinePassed' | 'unplugDeadlinePassed' | 'retryDue';

export type Effect =
  | { readonly type: 'beginEnable'; readonly generation: number; readonly count: number }
  | {
      readonly type: 'endEnable';
      readonly generation: number;
      readonly outcome: 'enabled' | 'failed';
      readonly text: string;
    }
  | { readonly type: 'createVfs'; readonly generation: number; readonly count: number }
  | { readonly type: 'plugVfs'; readonly generation: number; readonly count: number }
  /** The VFs answer to the guest from now on. */
  | { readonly type: 'activateVfs'; readonly count: number }
  /** The VFs read as absent from now on. */
  | { readonly type: 'deactivateVfs' }
  | {
      readonly type: 'unplugVfs';
      readonly generation: number;
      readonly vfIndexes: readonly number[];
      readonly reason: UnplugReason;
      readonly deadlineMilliseconds: number;
    }
  | { readonly type: 'releaseVfs' }
  | { readonly type: 'destroyVfs' }
  | {
      readonly type: 'startTimer';
      readonly event: TimerEvent;
      readonly generation: number;
      readonly milliseconds: number;
    }
  | { readonly type: 'report'; readonly level: 'info' | 'warn' | 'error'; readonly text: string };

/** How long the machine waits for whom, in milliseconds. */
export interface Limits {
  readonly totalVfs: number;
  readonly plugMilliseconds: number;
  readonly unplugMilliseconds: number;
  readonly retryMilliseconds: number;
}

export interface Step {
  readonly state: State;
  readonly effects: readonly Effect[];
}

const PEER_GONE = 'whoever plugs VFs into the VM has disconnected';

export const INITIAL: State = { phase: 'disabled', lastGeneration: 0 };

/** One step. Never throws; an event that means nothing in a phase gives the same state and no effects. */
export function step(state: State, event: Event, limits: Limits): Step {
  switch (state.phase) {
    case 'disabled':
      return whileDisabled(state, event, limits);
    case 'creating':
      return whileCreating(state, event, limits);
    case 'plugging':
      return whilePlugging(state, event, limits);
    case 'enabled':
      return whileEnabled(state, event, limits);
    case 'unplugging':
      return whileUnplugging(state, event, limits);
    case 'releasing':
      return whileReleasing(state, event, limits);
    case 'quarantined':
      return whileQuarantined(state, event, limits);
    case 'destroying':
      return whileDestroying(state, event, limits);
    default:
      return unreachable(state);
  }
}

type In<P extends Phase> = Extract<State, { phase: P }>;

function whileDisabled(state: In<'disabled'>, event: Event, limits: Limits): Step {
  if (event.type === 'vfEnableCleared') {
    return stay({ phase: 'disabled', lastGeneration: state.lastGeneration });
  }
  if (event.type !== 'vfEnableSet' || event.numVfs === 0) return stay(state);
  const refusal = refusalOf(event, limits);
  if (refusal !== undefined) {
    return {
      state: { phase: 'disabled', lastGeneration: state.lastGeneration, failure: refusal },
      effects: [warn(`VF Enable failed: ${refusal}`)],
    };
  }
  const generation = state.lastGeneration + 1;
  return {
    state: {
      phase: 'creating',
      count: event.numVfs,
      generation,
      lastGeneration: generation,
      cancelled: false,
    },
    effects: [begin(generation, event.numVfs), create(generation, event.numVfs)],
  };
}

function whileCreating(state: In<'creating'>, event: Event, limits: Limits): Step {
  switch (event.type) {
    case 'vfEnableCleared':
      if (state.cancelled) return dropWish(state);
      return {
        state: { ...state, cancelled: true },
        effects: [fail(state.generation, cleared(event.reason))],
      };
    case 'vfEnableSet':
      return state.cancelled ? takeWish(state, event, limits) : stay(state);
    case 'vfsCreated':
      if (state.cancelled) return release(state, state.wish, state.failure);
      return {
        state: {
          phase: 'plugging',
          ...vfsOf(state),
          unanswered: indexes(state.count),
        },
        effects: [
          { type: 'plugVfs', generation: state.generation, count: state.count },
          timer('plugDeadlinePassed', state.generation, limits.plugMilliseconds),
        ],
      };
    case 'createFailed': {
      const report = warn(`the host could not make ${state.count} VFs: ${event.text}`);
      if (state.cancelled) return proceed(state, state.wish, state.failure, [report]);
      return proceed(state, undefined, event.text, [report, fail(state.generation, event.text)]);
    }
    case 'bringUpFailed': {
      const { state: next, effects } = state.cancelled
        ? release(state, state.wish, state.failure)
        : release(state, undefined, event.text);
      const ended = state.cancelled ? [] : [fail(state.generation, event.text)];
      return {
        state: next,
        effects: [warn(`VFs cannot be used: ${event.text}`), ...ended, ...effects],
      };
    }
    case 'vfLost':
      return state.cancelled ? stay(state) : cancel(state, lost(event.vfIndex));
    case 'peerDetached':
      return state.cancelled ? dropWish(state, PEER_GONE) : cancel(state, PEER_GONE);
    default:
      return stay(state);
  }
}

function whilePlugging(state: In<'plugging'>, event: Event, limits: Limits): Step {
  switch (event.type) {
    case 'plugAnswered': {
      if (event.generation !== state.generation) return stay(state);
      if (!state.unanswered.includes(event.vfIndex)) return stay(state);
      if (event.refusal !== undefined) {
        const why = `VF ${event.vfIndex} was refused: ${event.refusal}`;
        const others = indexes(state.count).filter((index) => index !== event.vfIndex);
        return unplug(state, others, 'vfLost', why, limits);
      }
      const unanswered = without(state.unanswered, event.vfIndex);
      if (unanswered.length > 0) return stay({ ...state, unanswered });
      return {
        state: { phase: 'enabled', ...vfsOf(state) },
        effects: [
          { type: 'activateVfs', count: state.count },
          { type: 'endEnable', generation: state.generation, outcome: 'enabled', text: '' },
        ],
      };
    }
    case 'plugDeadlinePassed': {
      if (event.generation !== state.generation) return stay(state);
      const why = `VfPlug of VF ${state.unanswered.join(', ')} was not answered within ${limits.plugMilliseconds} ms`;
      return unplug(state, indexes(state.count), 'vfLost', why, limits);
    }
    case 'vfEnableCleared':
      return unplug(state, indexes(state.count), event.reason, undefined, limits);
    case 'vfLost':
      return unplug(state, indexes(state.count), 'vfLost', lost(event.vfIndex), limits);
    case 'peerDetached': {
      const { state: next, effects } = release(state, undefined, PEER_GONE);
      return {
        state: next,
        effects: [{ type: 'deactivateVfs' }, fail(state.generation, PEER_GONE), ...effects],
      };
    }
    default:
      return stay(state);
  }
}

function whileEnabled(state: In<'enabled'>, event: Event, limits: Limits): Step {
  switch (event.type) {
    case 'vfEnableCleared':
      return unplug(state, indexes(state.count), event.reason, undefined, limits);
    case 'vfLost':
      return unplug(state, indexes(state.count), 'vfLost', lost(event.vfIndex), limits);
    default:
      // A glue that goes leaves its VFs working; a VMM that goes resets the PF, which clears VF Enable.
      return stay(state);
  }
}

function whileUnplugging(state: In<'unplugging'>, event: Event, limits: Limits): Step {
  switch (event.type) {
    case 'unplugAnswered': {
      if (event.generation !== state.generation) return stay(state);
      if (!state.unanswered.includes(event.vfIndex)) return stay(state);
      if (event.refusal !== undefined) {
        return {
          state,
          effects: [warn(`VfUnplug of VF ${event.vfIndex} was refused: ${event.refusal}`)],
        };
      }
      const unanswered = without(state.unanswered, event.vfIndex);
      if (unanswered.length > 0) return stay({ ...state, unanswered });
      return release(state, state.wish, state.failure);
    }
    case 'unplugDeadlinePassed':
      if (event.generation !== state.generation) return stay(state);
      if (!event.vmmHolds) return release(state, state.wish, state.failure);
      return quarantine(
        state,
        state.unanswered,
        state.unanswered.map((vfIndex) => ({ vfIndex, holder: 'the VMM, which did not let go' })),
        state.wish,
        limits,
      );
    case 'peerDetached': {
      const { state: next, effects } = release(state, undefined, state.failure);
      return { state: next, effects: [...failWish(state.wish, PEER_GONE), ...effects] };
    }
    case 'vfEnableSet':
      return takeWish(state, event, limits);
    case 'vfEnableCleared':
      return dropWish(state);
    default:
      return stay(state);
  }
}

function whileReleasing(state: In<'releasing'>, event: Event, limits: Limits): Step {
  switch (event.type) {
    case 'vfsReleased':
      if (event.held.length > 0) return quarantine(state, [], event.held, state.wish, limits);
      return {
        state: { ...vfsOf(state), phase: 'destroying', ...carried(state.wish, state.failure) },
        effects: [{ type: 'destroyVfs' }],
      };
    case 'peerDetached':
      return dropWish(state, PEER_GONE);
    case 'vfEnableSet':
      return takeWish(state, event, limits);
    case 'vfEnableCleared':
      return dropWish(state);
    default:
      return stay(state);
  }
}

function whileQuarantined(state: In<'quarantined'>, event: Event, limits: Limits): Step {
  switch (event.type) {
    case 'unplugAnswered': {
      if (event.generation !== state.generation || event.refusal !== undefined) return stay(state);
      if (!state.unanswered.includes(event.vfIndex)) return stay(state);
      const unanswered = without(state.unanswered, event.vfIndex);
      if (unanswered.length === 0) return release(state, undefined, state.failure);
      const held = state.held.filter(({ vfIndex }) => vfIndex !== event.vfIndex);
      return stay({ ...state, unanswered, held });
    }
    case 'peerDetached':
      return state.unanswered.length > 0 ? release(state, undefined, state.failure) : stay(state);
    case 'retryDue':
      if (event.generation !== state.generation) return stay(state);
      if (state.unanswered.length === 0) return release(state, undefined, state.failure);
      return {
        state,
        effects: [timer('retryDue', state.generation, limits.retryMilliseconds)],
      };
    case 'vfEnableSet': {
      if (event.numVfs === 0) return stay(state);
      return { state, effects: [warn(`VF Enable failed: ${quarantineText(state.held)}`)] };
    }
    default:
      return stay(state);
  }
}

function whileDestroying(state: In<'destroying'>, event: Event, limits: Limits): Step {
  switch (event.type) {
    case 'vfsDestroyed':
      return proceed(state, state.wish, state.failure, []);
    case 'destroyFailed':
      return quarantine(
        state,
        [],
        [{ vfIndex: 0, holder: `the host: ${event.text}` }],
        state.wish,
        limits,
      );
    case 'peerDetached':
      return dropWish(state, PEER_GONE);
    case 'vfEnableSet':
      return takeWish(state, event, limits);
    case 'vfEnableCleared':
      return dropWish(state);
    default:
      return stay(state);
  }
}

/** An enable that cannot succeed any more while the host is still making its VFs. */
function cancel(state: In<'creating'>, failure: string): Step {
  return {
    state: { ...state, cancelled: true, failure },
    effects: [fail(state.generation, failure)],
  };
}

/** Tells the VMM to let go of VFs; those of a failed plug included, because their answers may still be on the way. */
function unplug(
  state: In<'plugging' | 'enabled'>,
  vfIndexes: readonly number[],
  reason: UnplugReason,
  failure: string | undefined,
  limits: Limits,
): Step {
  const begun: Effect[] = [{ type: 'deactivateVfs' }];
  if (failure !== undefined) begun.push(warn(`taking ${state.count} VFs away: ${failure}`));
  if (state.phase === 'plugging') begun.push(fail(state.generation, failure ?? cleared(reason)));
  if (vfIndexes.length === 0) {
    const { state: next, effects } = release(state, undefined, failure);
    return { state: next, effects: [...begun, ...effects] };
  }
  return {
    state: {
      phase: 'unplugging',
      ...vfsOf(state),
      unanswered: vfIndexes,
      ...carried(undefined, failure),
    },
    effects: [
      ...begun,
      {
        type: 'unplugVfs',
        generation: state.generation,
        vfIndexes,
        reason,
        deadlineMilliseconds: limits.unplugMilliseconds,
      },
      timer('unplugDeadlinePassed', state.generation, limits.unplugMilliseconds),
    ],
  };
}

function release(vfs: Vfs, wish: Wish | undefined, failure: string | undefined): Step {
  return {
    state: { phase: 'releasing', ...vfsOf(vfs), ...carried(wish, failure) },
    effects: [{ type: 'releaseVfs' }],
  };
}

/** VFs that somebody does not let go of stay in the host; an enable that waited for them fails. */
function quarantine(
  vfs: Vfs,
  unanswered: readonly number[],
  held: readonly Holder[],
  wish: Wish | undefined,
  limits: Limits,
): Step {
  const failure = quarantineText(held);
  return {
    state: { phase: 'quarantined', ...vfsOf(vfs), unanswered, held, failure },
    effects: [
      { type: 'report', level: 'warn', text: failure },
      ...failWish(wish, failure),
      timer('retryDue', vfs.generation, limits.retryMilliseconds),
    ],
  };
}

/** Nothing is left of the old VFs: on to the enable that waits, or to rest. */
function proceed(
  vfs: Vfs,
  wish: Wish | undefined,
  failure: string | undefined,
  effects: readonly Effect[],
): Step {
  if (wish === undefined) {
    const { lastGeneration } = vfs;
    return {
      state: { phase: 'disabled', lastGeneration, ...carried(undefined, failure) },
      effects,
    };
  }
  return {
    state: {
      phase: 'creating',
      count: wish.count,
      generation: wish.generation,
      lastGeneration: vfs.lastGeneration,
      cancelled: false,
    },
    effects: [...effects, create(wish.generation, wish.count)],
  };
}

/** The phases in which VFs are on their way out and a new enable has to wait. */
type Leaving = In<'creating' | 'unplugging' | 'releasing' | 'destroying'>;

/** VF Enable set again while the VFs before are still on their way out. */
function takeWish(
  state: Leaving,
  event: Extract<Event, { type: 'vfEnableSet' }>,
  limits: Limits,
): Step {
  if (state.wish !== undefined || event.numVfs === 0) return stay(state);
  const refusal = refusalOf(event, limits);
  if (refusal !== undefined) {
    const failed = { ...state, failure: refusal };
    return { state: failed, effects: [warn(`VF Enable failed: ${refusal}`)] };
  }
  const generation = state.lastGeneration + 1;
  return {
    state: { ...state, lastGeneration: generation, wish: { count: event.numVfs, generation } },
    effects: [begin(generation, event.numVfs)],
  };
}

function dropWish(state: Leaving, why = 'VF Enable was cleared'): Step {
  const { wish, ...rest } = state;
  return { state: rest, effects: failWish(wish, why) };
}

function failWish(wish: Wish | undefined, why: string): Effect[] {
  return wish === undefined ? [] : [fail(wish.generation, why)];
}

function refusalOf(
  event: Extract<Event, { type: 'vfEnableSet' }>,
  limits: Limits,
): string | undefined {
  if (event.numVfs > limits.totalVfs) {
    return `NumVFs is ${event.numVfs}, but TotalVFs ${limits.totalVfs}`;
  }
  return event.obstacle;
}

/** A person's sentence about VFs that are not free. */
export function quarantineText(held: readonly Holder[]): string {
  const who = held.map(({ vfIndex, holder }) => `VF ${vfIndex} is held by ${holder}`);
  return `VFs stay in quarantine: ${who.join('; ')}; they are removed as soon as nobody holds them`;
}

function stay(state: State): Step {
  return { state, effects: [] };
}

function vfsOf({ count, generation, lastGeneration }: Vfs): Vfs {
  return { count, generation, lastGeneration };
}

function carried(
  wish: Wish | undefined,
  failure: string | undefined,
): { wish?: Wish; failure?: string } {
  return {
    ...(wish === undefined ? {} : { wish }),
    ...(failure === undefined ? {} : { failure }),
  };
}

function indexes(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

function without(list: readonly number[], value: number): number[] {
  return list.filter((each) => each !== value);
}

function cleared(reason: UnplugReason): string {
  return `VF Enable was cleared (${reason})`;
}

function lost(vfIndex: number): string {
  return `the host's kernel wants VF ${vfIndex} back`;
}

function begin(generation: number, count: number): Effect {
  return { type: 'beginEnable', generation, count };
}

function create(generation: number, count: number): Effect {
  return { type: 'createVfs', generation, count };
}

function fail(generation: number, text: string): Effect {
  return { type: 'endEnable', generation, outcome: 'failed', text };
}

function timer(event: TimerEvent, generation: number, milliseconds: number): Effect {
  return { type: 'startTimer', event, generation, milliseconds };
}

function warn(text: string): Effect {
  return { type: 'report', level: 'warn', text };
}

function unreachable(state: never): never {
  throw new Error(`no such phase: ${JSON.stringify(state)}`);
}
