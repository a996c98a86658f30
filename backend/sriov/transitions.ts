// The moves that the SR-IOV machine (machine.ts) makes from more than one phase, and the effects by name. Pure.

import type {
  Effect,
  Event,
  Holder,
  In,
  Limits,
  State,
  Step,
  TimerEvent,
  UnplugReason,
  Vfs,
  Wish,
} from './states-and-events.ts';

/** Why an enable fails whose peer has gone. */
export const PEER_GONE = 'whoever plugs VFs into the VM has disconnected';

/** An enable that cannot succeed any more while the host is still making its VFs. */
export function cancel(state: In<'creating'>, failure: string): Step {
  return {
    state: { ...state, cancelled: true, failure },
    effects: [warn(`VF Enable failed: ${failure}`), fail(state.generation, failure)],
  };
}

/** Tells the VMM to let go of VFs; those of a failed plug included, because their answers may still be on the way. */
export function unplug(
  state: In<'plugging' | 'enabled'>,
  vfIndexes: readonly number[],
  reason: UnplugReason,
  failure: string | undefined,
  limits: Limits,
): Step {
  const begun: Effect[] = [{ type: 'deactivateVfs' }];
  if (failure !== undefined) {
    begun.push(warn(`taking ${state.count} VFs away: ${failure}`));
  }
  if (state.phase === 'plugging') {
    begun.push(fail(state.generation, failure ?? cleared(reason)));
  }
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

/** Our own fds go first; what the host then says of the VFs decides what follows. */
export function release(vfs: Vfs, wish: Wish | undefined, failure: string | undefined): Step {
  return {
    state: { phase: 'releasing', ...vfsOf(vfs), ...carried(wish, failure) },
    effects: [{ type: 'releaseVfs' }],
  };
}

/** Looks again whether the VFs are free. */
export function retry(state: In<'quarantined'>): Step {
  return {
    state: {
      phase: 'releasing',
      ...vfsOf(state),
      ...carried(undefined, state.failure),
      quarantine: quarantineText(state.held),
    },
    effects: [{ type: 'releaseVfs' }],
  };
}

/** VFs that somebody does not let go of stay in the host; an enable that waited for them fails. */
export function quarantine(
  vfs: Vfs,
  unanswered: readonly number[],
  held: readonly Holder[],
  { wish, failure, quarantine: before }: Pick<In<'releasing'>, 'wish' | 'failure' | 'quarantine'>,
  limits: Limits,
): Step {
  const text = quarantineText(held);
  return {
    state: {
      phase: 'quarantined',
      ...vfsOf(vfs),
      unanswered,
      held,
      ...carried(undefined, wish === undefined ? failure : text),
    },
    effects: [
      // Not again with every retry.
      ...(text === before ? [] : [warn(text)]),
      ...failWish(wish, text),
      timer('retryDue', vfs.generation, limits.retryMilliseconds),
    ],
  };
}

/** Nothing is left of the old VFs: on to the enable that waits, or to rest. */
export function proceed(
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
    effects: [...effects, create(wish.generation, wish.count), place(wish.generation, wish.count)],
  };
}

/** The phases in which VFs are on their way out and a new enable has to wait. */
type Leaving = In<'creating' | 'unplugging' | 'releasing' | 'destroying'>;

/** VF Enable set again while the VFs before are still on their way out. */
export function takeWish(
  state: Leaving,
  event: Extract<Event, { type: 'vfEnableSet' }>,
  limits: Limits,
): Step {
  if (state.wish !== undefined || event.numVfs === 0) {
    return stay(state);
  }
  const refusal = refusalOf(event, limits);
  if (refusal !== undefined) {
    const failed = { ...state, failure: refusal };
    return { state: failed, effects: [warn(`VF Enable failed: ${refusal}`)] };
  }
  const generation = state.lastGeneration + 1;
  const { failure: _, ...rest } = state;
  return {
    state: { ...rest, lastGeneration: generation, wish: { count: event.numVfs, generation } },
    effects: [begin(generation, event.numVfs)],
  };
}

/** What any event means to the enable that waits, while the VFs before it are on their way out. */
export function changeWish(state: Leaving, event: Event, limits: Limits): Step {
  switch (event.type) {
    case 'vfEnableSet':
      return takeWish(state, event, limits);
    case 'vfEnableCleared':
      return dropWish(state);
    case 'peerDetached':
      return loseWish(state, PEER_GONE);
    default:
      return stay(state);
  }
}

/** The guest has changed its mind. */
export function dropWish(state: Leaving): Step {
  const { wish, ...rest } = state;
  return { state: rest, effects: failWish(wish, 'VF Enable was cleared') };
}

/** The enable that waits cannot succeed any more. */
export function loseWish(state: Leaving, why: string): Step {
  const { wish, ...rest } = state;
  return wish === undefined
    ? stay(state)
    : { state: { ...rest, failure: why }, effects: [fail(wish.generation, why)] };
}

export function failWish(wish: Wish | undefined, why: string): Effect[] {
  return wish === undefined ? [] : [fail(wish.generation, why)];
}

export function refusalOf(
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

export function stay(state: State): Step {
  return { state, effects: [] };
}

export function vfsOf({ count, generation, lastGeneration }: Vfs): Vfs {
  return { count, generation, lastGeneration };
}

export function carried(
  wish: Wish | undefined,
  failure: string | undefined,
): { wish?: Wish; failure?: string } {
  return {
    ...(wish === undefined ? {} : { wish }),
    ...(failure === undefined ? {} : { failure }),
  };
}

/** An answer that is not about these VFs, or was given before, means nothing any more. */
export function isAwaited(
  { generation, unanswered }: In<'plugging' | 'unplugging' | 'quarantined'>,
  answer: { readonly generation: number; readonly vfIndex: number },
): boolean {
  return answer.generation === generation && unanswered.includes(answer.vfIndex);
}

export function indexes(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

export function without(list: readonly number[], value: number): number[] {
  return list.filter((each) => each !== value);
}

export function cleared(reason: UnplugReason): string {
  return `VF Enable was cleared (${reason})`;
}

export function refused(vfIndex: number, refusal: string): string {
  return `VF ${vfIndex} was refused: ${refusal}`;
}

export function lost(vfIndex: number): string {
  return `the host's kernel wants VF ${vfIndex} back`;
}

export function begin(generation: number, count: number): Effect {
  return { type: 'beginEnable', generation, count };
}

export function create(generation: number, count: number): Effect {
  return { type: 'createVfs', generation, count };
}

export function place(generation: number, count: number): Effect {
  return { type: 'placeVfs', generation, count };
}

export function fail(generation: number, text: string): Effect {
  return { type: 'endEnable', generation, outcome: 'failed', text };
}

export function timer(event: TimerEvent, generation: number, milliseconds: number): Effect {
  return { type: 'startTimer', event, generation, milliseconds };
}

export function warn(text: string): Effect {
  return { type: 'report', level: 'warn', text };
}
