// Whatever order things happen in, the SR-IOV machine keeps its promises to the host, to the VMM and to the guest.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { step } from '../../backend/sriov/machine.ts';
import {
  type Effect,
  type Event,
  INITIAL,
  type Limits,
  type State,
} from '../../backend/sriov/states-and-events.ts';

const LIMITS: Limits = {
  totalVfs: 4,
  plugMilliseconds: 100,
  unplugMilliseconds: 200,
  retryMilliseconds: 300,
};

/** An event that depends on where the machine is: on its generation, or on the answer that it waits for. */
type Draft = (state: State) => Event;

const index = fc.integer({ min: 0, max: LIMITS.totalVfs });
const age = fc.constantFrom(0, 0, 0, 1, -1);
const refusal = fc.constantFrom({}, {}, {}, { refusal: 'EBUSY' });
const held = fc.oneof(
  fc.constant([]),
  fc.array(
    index.map((vfIndex) => ({ vfIndex, holder: 'vt' })),
    { maxLength: 2 },
  ),
);

const fixed = (event: Event): fc.Arbitrary<Draft> => fc.constant(() => event);

const anything: fc.Arbitrary<Draft> = fc.oneof(
  fc
    .record({ numVfs: fc.integer({ min: 0, max: LIMITS.totalVfs + 2 }), blocked: fc.boolean() })
    .map(({ numVfs, blocked }): Draft => {
      const obstacle = blocked && numVfs % 2 === 0 ? { obstacle: 'no glue' } : {};
      return () => ({ type: 'vfEnableSet', numVfs, ...obstacle });
    }),
  fc.constantFrom('guestDisabled', 'pfReset', 'shuttingDown').map(
    (reason): Draft =>
      () => ({ type: 'vfEnableCleared', reason: reason as 'pfReset' }),
  ),
  fixed({ type: 'vfsCreated' }),
  fixed({ type: 'createFailed', text: 'ENOSPC' }),
  fixed({ type: 'bringUpFailed', text: 'EMFILE' }),
  fixed({ type: 'vfsDestroyed' }),
  fixed({ type: 'destroyFailed', text: 'EIO' }),
  fixed({ type: 'peerDetached' }),
  index.map(
    (vfIndex): Draft =>
      () => ({ type: 'vfLost', vfIndex }),
  ),
  held.map(
    (each): Draft =>
      () => ({ type: 'vfsReleased', held: each }),
  ),
  fc.tuple(index, age, refusal).map(
    ([vfIndex, distance, how]): Draft =>
      (state) => ({
        type: 'plugAnswered',
        vfIndex,
        generation: generationOf(state) - distance,
        ...how,
      }),
  ),
  fc.tuple(index, age, refusal).map(
    ([vfIndex, distance, how]): Draft =>
      (state) => ({
        type: 'unplugAnswered',
        vfIndex,
        generation: generationOf(state) - distance,
        ...how,
      }),
  ),
  fc.tuple(age, fc.boolean()).map(
    ([distance, vmmHolds]): Draft =>
      (state) => ({
        type: 'unplugDeadlinePassed',
        generation: generationOf(state) - distance,
        vmmHolds,
      }),
  ),
  fc.tuple(age, fc.constantFrom('plugDeadlinePassed', 'retryDue')).map(
    ([distance, type]): Draft =>
      (state) => ({ type: type as 'retryDue', generation: generationOf(state) - distance }),
  ),
);

// Mostly things go on as they should, or nothing but the first phases would ever be seen.
const drafts = fc.oneof(
  { weight: 4, arbitrary: fc.constant<Draft>(pendingAnswer) },
  { weight: 1, arbitrary: fixed({ type: 'vfEnableSet', numVfs: 2 }) },
  { weight: 1, arbitrary: fixed({ type: 'vfEnableCleared', reason: 'guestDisabled' }) },
  { weight: 2, arbitrary: anything },
);
const histories = fc.array(drafts, { minLength: 20, maxLength: 80 });

interface Moment {
  readonly before: State;
  readonly event: Event;
  readonly effects: readonly Effect[];
  readonly after: State;
}

function generationOf(state: State): number {
  return 'generation' in state ? state.generation : state.lastGeneration;
}

function play(history: readonly Draft[]): Moment[] {
  let state = INITIAL;
  return history.map((draft) => {
    const before = state;
    const event = draft(before);
    const { state: after, effects } = step(before, event, LIMITS);
    state = after;
    return { before, event, effects, after };
  });
}

/** The answer that a phase waits for, at its friendliest. */
function pendingAnswer(state: State): Event {
  switch (state.phase) {
    case 'creating':
      return { type: 'vfsCreated' };
    case 'plugging':
      return {
        type: 'plugAnswered',
        vfIndex: state.unanswered[0]!,
        generation: state.generation,
      };
    case 'unplugging':
      return {
        type: 'unplugAnswered',
        vfIndex: state.unanswered[0]!,
        generation: state.generation,
      };
    case 'quarantined':
      return state.unanswered.length > 0
        ? { type: 'unplugAnswered', vfIndex: state.unanswered[0]!, generation: state.generation }
        : { type: 'retryDue', generation: state.generation };
    case 'releasing':
      return { type: 'vfsReleased', held: [] };
    default:
      return { type: 'vfsDestroyed' };
  }
}

describe('the SR-IOV machine, after any history', () => {
  it('never has more VFs than TotalVFs, nor asks the host for more, nor for none', () => {
    fc.assert(
      fc.property(histories, (history) => {
        for (const { effects, after } of play(history)) {
          if ('count' in after) {
            expect(after.count).toBeLessThanOrEqual(LIMITS.totalVfs);
          }
          for (const effect of effects) {
            if (effect.type !== 'createVfs') {
              continue;
            }
            expect(effect.count).toBeGreaterThan(0);
            expect(effect.count).toBeLessThanOrEqual(LIMITS.totalVfs);
          }
        }
      }),
    );
  });

  it('removes VFs only after it has had them released and heard that nobody holds one', () => {
    fc.assert(
      fc.property(histories, (history) => {
        let released = false;
        for (const { event, effects } of play(history)) {
          for (const effect of effects) {
            if (effect.type === 'createVfs') {
              released = false;
            }
            if (effect.type === 'releaseVfs') {
              released = true;
            }
            if (effect.type !== 'destroyVfs') {
              continue;
            }
            expect(released).toBe(true);
            expect(event).toEqual({ type: 'vfsReleased', held: [] });
            released = false;
          }
        }
      }),
    );
  });

  it('makes VFs only when those before are gone', () => {
    fc.assert(
      fc.property(histories, (history) => {
        let exist = false;
        for (const { event, effects, before } of play(history)) {
          const isHostsAnswer =
            (event.type === 'vfsDestroyed' && before.phase === 'destroying') ||
            (event.type === 'createFailed' && before.phase === 'creating');
          if (isHostsAnswer) {
            exist = false;
          }
          for (const effect of effects) {
            if (effect.type !== 'createVfs') {
              continue;
            }
            expect(exist).toBe(false);
            exist = true;
          }
        }
      }),
    );
  });

  it('removes no VF that the VMM was given and has not let go of', () => {
    fc.assert(
      fc.property(histories, (history) => {
        const given = new Set<number>();
        const asked = new Set<number>();
        for (const { before, event, effects } of play(history)) {
          const isCurrent = 'generation' in event && event.generation === generationOf(before);
          if (event.type === 'plugAnswered' && isCurrent && event.refusal !== undefined) {
            if (before.phase === 'plugging') {
              given.delete(event.vfIndex);
            }
          }
          if (event.type === 'unplugAnswered' && isCurrent && event.refusal === undefined) {
            if (asked.has(event.vfIndex)) {
              given.delete(event.vfIndex);
            }
          }
          const slotsGivenUp =
            event.type === 'unplugDeadlinePassed' && !event.vmmHolds && isCurrent;
          if (slotsGivenUp && before.phase === 'unplugging') {
            given.clear();
          }
          if (event.type === 'peerDetached' && before.phase !== 'enabled') {
            given.clear();
          }
          for (const effect of effects) {
            if (effect.type === 'plugVfs') {
              asked.clear();
              for (let vfIndex = 0; vfIndex < effect.count; vfIndex++) {
                given.add(vfIndex);
              }
            }
            if (effect.type === 'unplugVfs') {
              for (const each of effect.vfIndexes) {
                asked.add(each);
              }
            }
            if (effect.type === 'destroyVfs') {
              expect([...given]).toEqual([]);
            }
          }
        }
      }),
    );
  });

  it('ends every enable that it began exactly once, and generations only rise', () => {
    fc.assert(
      fc.property(histories, (history) => {
        const open = new Set<number>();
        let last = 0;
        for (const { effects, after } of play(history)) {
          for (const effect of effects) {
            if (effect.type === 'beginEnable') {
              expect(effect.generation).toBeGreaterThan(last);
              last = effect.generation;
              open.add(effect.generation);
            }
            if (effect.type === 'endEnable') {
              expect(open.delete(effect.generation)).toBe(true);
            }
          }
          const rests = ['disabled', 'enabled', 'quarantined'].includes(after.phase);
          if (rests) {
            expect([...open]).toEqual([]);
          }
        }
      }),
    );
  });

  it('shows VFs to the guest only while it says that they are enabled', () => {
    fc.assert(
      fc.property(histories, (history) => {
        let visible = false;
        for (const { effects, after } of play(history)) {
          for (const { type } of effects) {
            if (type === 'activateVfs') {
              visible = true;
            }
            if (type === 'deactivateVfs') {
              visible = false;
            }
          }
          expect(visible).toBe(after.phase === 'enabled');
        }
      }),
    );
  });

  it('announces VFs within their enable only, and takes them away after its end', () => {
    fc.assert(
      fc.property(histories, (history) => {
        const open = new Set<number>();
        for (const { effects } of play(history)) {
          for (const effect of effects) {
            if (effect.type === 'beginEnable') {
              open.add(effect.generation);
            }
            if (effect.type === 'endEnable') {
              open.delete(effect.generation);
            }
            const { type } = effect;
            if (type === 'placeVfs') {
              expect(open.has(effect.generation)).toBe(true);
            }
            if (type === 'plugVfs') {
              expect(open.has(effect.generation)).toBe(true);
            }
            if (effect.type === 'unplugVfs') {
              expect(open.has(effect.generation)).toBe(false);
            }
          }
        }
      }),
    );
  });

  it('comes to rest when everybody answers, whatever went before', () => {
    fc.assert(
      fc.property(histories, (history) => {
        let state = play(history).at(-1)?.after ?? INITIAL;
        for (let answers = 0; answers < 40; answers++) {
          if (state.phase === 'disabled' || state.phase === 'enabled') {
            return;
          }
          state = step(state, pendingAnswer(state), LIMITS).state;
        }
        throw new Error(`stuck in ${JSON.stringify(state)}`);
      }),
    );
  });

  it('waits under a timer for whoever may never answer', () => {
    fc.assert(
      fc.property(histories, (history) => {
        const timers = new Set<string>();
        const waits = {
          plugging: 'plugDeadlinePassed',
          unplugging: 'unplugDeadlinePassed',
          quarantined: 'retryDue',
        } as const;
        for (const { event, effects, after } of play(history)) {
          if ('generation' in event) {
            timers.delete(`${event.type} ${event.generation}`);
          }
          for (const effect of effects) {
            if (effect.type === 'startTimer') {
              timers.add(`${effect.event} ${effect.generation}`);
            }
          }
          if (after.phase in waits) {
            const timer = waits[after.phase as keyof typeof waits];
            expect(timers).toContain(`${timer} ${generationOf(after)}`);
          }
        }
      }),
    );
  });
});
