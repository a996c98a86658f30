// The SR-IOV machine: from what the guest, the VMM and the host did, to what is to be done next.
// Pure: `step(state, event, limits)` gives the next state and the effects, which backend/hotplug/runner.ts carries out in order.
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

import type { Event, In, Limits, State, Step } from './states-and-events.ts';
import {
  begin,
  cancel,
  carried,
  changeWish,
  cleared,
  create,
  dropWish,
  fail,
  failWish,
  indexes,
  isAwaited,
  loseWish,
  lost,
  PEER_GONE,
  place,
  proceed,
  quarantine,
  quarantineText,
  refusalOf,
  refused,
  release,
  retry,
  stay,
  takeWish,
  timer,
  unplug,
  vfsOf,
  warn,
  without,
} from './transitions.ts';

/** Whether an enable is under way that may still get its VFs. */
export function isBringingUp(state: State): boolean {
  if ('wish' in state && state.wish !== undefined) {
    return true;
  }
  return state.phase === 'plugging' || (state.phase === 'creating' && !state.cancelled);
}

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

function whileDisabled(state: In<'disabled'>, event: Event, limits: Limits): Step {
  if (event.type !== 'vfEnableSet' || event.numVfs === 0) {
    return stay(state);
  }
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
    // The host first: it takes longest, and nobody has to have prepared for it.
    effects: [
      create(generation, event.numVfs),
      begin(generation, event.numVfs),
      place(generation, event.numVfs),
    ],
  };
}

function whileCreating(state: In<'creating'>, event: Event, limits: Limits): Step {
  switch (event.type) {
    case 'vfEnableCleared':
      if (state.cancelled) {
        return dropWish(state);
      }
      return {
        state: { ...state, cancelled: true },
        effects: [fail(state.generation, cleared(event.reason))],
      };
    case 'vfEnableSet':
      return state.cancelled ? takeWish(state, event, limits) : stay(state);
    case 'vfsCreated':
      if (state.cancelled) {
        return release(state, state.wish, state.failure);
      }
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
      if (state.cancelled) {
        return proceed(state, state.wish, state.failure, [report]);
      }
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
    case 'plugAnswered': {
      // A glue is asked before the VFs are up; all it can say in advance is no.
      const isOurs = event.generation === state.generation && !state.cancelled;
      if (!isOurs || event.refusal === undefined) {
        return stay(state);
      }
      return cancel(state, refused(event.vfIndex, event.refusal));
    }
    case 'vfLost':
      return state.cancelled ? stay(state) : cancel(state, lost(event.vfIndex));
    case 'peerDetached':
      return state.cancelled ? loseWish(state, PEER_GONE) : cancel(state, PEER_GONE);
    default:
      return stay(state);
  }
}

function whilePlugging(state: In<'plugging'>, event: Event, limits: Limits): Step {
  switch (event.type) {
    case 'plugAnswered': {
      if (!isAwaited(state, event)) {
        return stay(state);
      }
      if (event.refusal !== undefined) {
        const why = refused(event.vfIndex, event.refusal);
        const others = indexes(state.count).filter((index) => index !== event.vfIndex);
        return unplug(state, others, 'vfLost', why, limits);
      }
      const unanswered = without(state.unanswered, event.vfIndex);
      if (unanswered.length > 0) {
        return stay({ ...state, unanswered });
      }
      return {
        state: { phase: 'enabled', ...vfsOf(state) },
        effects: [
          { type: 'activateVfs', count: state.count },
          { type: 'endEnable', generation: state.generation, outcome: 'enabled', text: '' },
        ],
      };
    }
    case 'plugDeadlinePassed': {
      if (event.generation !== state.generation) {
        return stay(state);
      }
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
      if (!isAwaited(state, event)) {
        return stay(state);
      }
      if (event.refusal !== undefined) {
        return {
          state,
          effects: [warn(`VfUnplug of VF ${event.vfIndex} was refused: ${event.refusal}`)],
        };
      }
      const unanswered = without(state.unanswered, event.vfIndex);
      if (unanswered.length > 0) {
        return stay({ ...state, unanswered });
      }
      return release(state, state.wish, state.failure);
    }
    case 'unplugDeadlinePassed':
      if (event.generation !== state.generation) {
        return stay(state);
      }
      if (!event.vmmHolds) {
        return release(state, state.wish, state.failure);
      }
      return quarantine(
        state,
        state.unanswered,
        state.unanswered.map((vfIndex) => ({ vfIndex, holder: 'the VMM, which did not let go' })),
        state,
        limits,
      );
    case 'peerDetached': {
      const failure = state.wish === undefined ? state.failure : PEER_GONE;
      const { state: next, effects } = release(state, undefined, failure);
      return { state: next, effects: [...failWish(state.wish, PEER_GONE), ...effects] };
    }
    default:
      return changeWish(state, event, limits);
  }
}

function whileReleasing(state: In<'releasing'>, event: Event, limits: Limits): Step {
  switch (event.type) {
    case 'vfsReleased':
      if (event.held.length > 0) {
        return quarantine(state, [], event.held, state, limits);
      }
      return {
        state: { ...vfsOf(state), phase: 'destroying', ...carried(state.wish, state.failure) },
        effects: [{ type: 'destroyVfs' }],
      };
    default:
      return changeWish(state, event, limits);
  }
}

function whileQuarantined(state: In<'quarantined'>, event: Event, limits: Limits): Step {
  switch (event.type) {
    case 'unplugAnswered': {
      if (!isAwaited(state, event) || event.refusal !== undefined) {
        return stay(state);
      }
      const unanswered = without(state.unanswered, event.vfIndex);
      if (unanswered.length === 0) {
        return retry(state);
      }
      const held = state.held.filter(({ vfIndex }) => vfIndex !== event.vfIndex);
      return stay({ ...state, unanswered, held });
    }
    case 'peerDetached':
      return state.unanswered.length > 0 ? retry(state) : stay(state);
    case 'retryDue':
      if (event.generation !== state.generation) {
        return stay(state);
      }
      if (state.unanswered.length === 0) {
        return retry(state);
      }
      return {
        state,
        effects: [timer('retryDue', state.generation, limits.retryMilliseconds)],
      };
    case 'vfEnableSet': {
      if (event.numVfs === 0) {
        return stay(state);
      }
      const failure = quarantineText(state.held);
      return { state: { ...state, failure }, effects: [warn(`VF Enable failed: ${failure}`)] };
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
        state,
        limits,
      );
    default:
      return changeWish(state, event, limits);
  }
}

function unreachable(state: never): never {
  throw new Error(`no such phase: ${JSON.stringify(state)}`);
}
