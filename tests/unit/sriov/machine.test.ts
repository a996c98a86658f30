// The SR-IOV machine as a table: every phase with every event. What it ignores is as much decided as what it does.

import { describe, expect, it } from 'vitest';
import { isBringingUp, step } from '../../../backend/sriov/machine.ts';
import {
  type Effect,
  type Event,
  INITIAL,
  type Limits,
  type State,
  type Step,
} from '../../../backend/sriov/states-and-events.ts';
import { PEER_GONE } from '../../../backend/sriov/transitions.ts';

const LIMITS: Limits = {
  totalVfs: 8,
  plugMilliseconds: 100,
  unplugMilliseconds: 200,
  retryMilliseconds: 300,
};

const VFS = { count: 2, generation: 5, lastGeneration: 5 };
const WISHED = { count: 2, generation: 5, lastGeneration: 6, wish: { count: 3, generation: 6 } };
const FREE: Event = { type: 'vfsReleased', held: [] };
const HELD = [{ vfIndex: 1, holder: 'pid 7' }];

/** Every state that a row of its own is worth. */
const STATES: Readonly<Record<string, State>> = {
  disabled: { phase: 'disabled', lastGeneration: 4 },
  creating: { phase: 'creating', cancelled: false, ...VFS },
  'creating, cancelled': { phase: 'creating', cancelled: true, ...VFS },
  'creating, cancelled, wish': { phase: 'creating', cancelled: true, ...WISHED },
  plugging: { phase: 'plugging', unanswered: [0, 1], ...VFS },
  'plugging, last one': { phase: 'plugging', unanswered: [1], ...VFS },
  enabled: { phase: 'enabled', ...VFS },
  unplugging: { phase: 'unplugging', unanswered: [0, 1], ...VFS },
  'unplugging, last one, wish': { phase: 'unplugging', unanswered: [1], ...WISHED },
  releasing: { phase: 'releasing', ...VFS },
  'releasing, wish': { phase: 'releasing', ...WISHED },
  'quarantined, VMM silent': {
    phase: 'quarantined',
    unanswered: [1],
    held: HELD,
    ...VFS,
  },
  'quarantined, held': {
    phase: 'quarantined',
    unanswered: [],
    held: HELD,
    ...VFS,
  },
  destroying: { phase: 'destroying', ...VFS },
  'destroying, wish': { phase: 'destroying', ...WISHED },
};

const EVENTS: Readonly<Record<string, Event>> = {
  'vfEnableSet 3': { type: 'vfEnableSet', numVfs: 3 },
  'vfEnableSet 0': { type: 'vfEnableSet', numVfs: 0 },
  'vfEnableSet 9 of 8': { type: 'vfEnableSet', numVfs: 9 },
  'vfEnableSet, obstacle': { type: 'vfEnableSet', numVfs: 3, obstacle: 'no glue' },
  vfEnableCleared: { type: 'vfEnableCleared', reason: 'guestDisabled' },
  vfsCreated: { type: 'vfsCreated' },
  createFailed: { type: 'createFailed', text: 'ENOSPC' },
  bringUpFailed: { type: 'bringUpFailed', text: 'EMFILE' },
  'plugAnswered 1': { type: 'plugAnswered', vfIndex: 1, generation: 5 },
  'plugAnswered 1, generation 4': { type: 'plugAnswered', vfIndex: 1, generation: 4 },
  'plugAnswered 1, refused': { type: 'plugAnswered', vfIndex: 1, generation: 5, refusal: 'ENOMEM' },
  plugDeadlinePassed: { type: 'plugDeadlinePassed', generation: 5 },
  'plugDeadlinePassed, generation 4': { type: 'plugDeadlinePassed', generation: 4 },
  'unplugAnswered 1': { type: 'unplugAnswered', vfIndex: 1, generation: 5 },
  'unplugAnswered 1, generation 4': { type: 'unplugAnswered', vfIndex: 1, generation: 4 },
  'unplugAnswered 1, refused': {
    type: 'unplugAnswered',
    vfIndex: 1,
    generation: 5,
    refusal: 'EBUSY',
  },
  'unplugDeadlinePassed, slots': {
    type: 'unplugDeadlinePassed',
    generation: 5,
    vmmHolds: false,
  },
  'unplugDeadlinePassed, VMM holds': {
    type: 'unplugDeadlinePassed',
    generation: 5,
    vmmHolds: true,
  },
  'unplugDeadlinePassed, generation 4': {
    type: 'unplugDeadlinePassed',
    generation: 4,
    vmmHolds: true,
  },
  'vfsReleased, none held': { type: 'vfsReleased', held: [] },
  'vfsReleased, 1 held': { type: 'vfsReleased', held: HELD },
  vfsDestroyed: { type: 'vfsDestroyed' },
  destroyFailed: { type: 'destroyFailed', text: 'EIO' },
  retryDue: { type: 'retryDue', generation: 5 },
  'retryDue, generation 4': { type: 'retryDue', generation: 4 },
  peerDetached: { type: 'peerDetached' },
  'vfLost 1': { type: 'vfLost', vfIndex: 1 },
};

function nameOf(effect: Effect): string {
  switch (effect.type) {
    case 'beginEnable':
    case 'createVfs':
    case 'placeVfs':
    case 'plugVfs':
      return `${effect.type} #${effect.generation} of ${effect.count}`;
    case 'endEnable':
      return `endEnable #${effect.generation} ${effect.outcome}`;
    case 'activateVfs':
      return `activateVfs ${effect.count}`;
    case 'unplugVfs':
      return `unplugVfs #${effect.generation} ${effect.vfIndexes} ${effect.reason}`;
    case 'startTimer':
      return `timer ${effect.event} #${effect.generation} ${effect.milliseconds}`;
    case 'report':
      return effect.level;
    default:
      return effect.type;
  }
}

/** What of a state a row shows beside its phase. */
function nameOfState(state: State): string {
  const parts: string[] = [state.phase];
  if ('generation' in state) {
    parts.push(`#${state.generation}`);
  }
  if (state.phase === 'creating' && state.cancelled) {
    parts.push('cancelled');
  }
  if ('unanswered' in state) {
    parts.push(`waits for ${state.unanswered.join(',') || 'nobody'}`);
  }
  if ('wish' in state && state.wish !== undefined) {
    parts.push(`wish #${state.wish.generation}`);
  }
  if ('failure' in state && state.failure !== undefined) {
    parts.push('failure');
  }
  return parts.join(' ');
}

function rowOf(event: string, { state, effects }: Step): string {
  const done = effects.map(nameOf).join('; ');
  return `  ${event} -> ${nameOfState(state)}${done === '' ? '' : `: ${done}`}`;
}

function matrix(): string {
  const lines: string[] = [];
  for (const [name, state] of Object.entries(STATES)) {
    lines.push(`${name}`);
    const ignored: string[] = [];
    for (const [eventName, event] of Object.entries(EVENTS)) {
      const outcome = step(state, event, LIMITS);
      const same = JSON.stringify(outcome.state) === JSON.stringify(state);
      if (same && outcome.effects.length === 0) {
        ignored.push(eventName);
      } else {
        lines.push(rowOf(eventName, outcome));
      }
    }
    lines.push(...linesOf(shortened(ignored)));
  }
  return lines.join('\n');
}

/** An event type of which every variant is ignored is named once. */
function shortened(ignored: readonly string[]): string[] {
  const variantsOf = (type: string) => Object.keys(EVENTS).filter((name) => typeOf(name) === type);
  const names = ignored.map((name) => {
    const type = typeOf(name);
    return variantsOf(type).every((variant) => ignored.includes(variant)) ? type : name;
  });
  return [...new Set(names)];
}

function typeOf(eventName: string): string {
  return EVENTS[eventName]!.type;
}

function linesOf(ignored: readonly string[]): string[] {
  const rows: string[] = [];
  for (let at = 0; at < ignored.length; at += 6) {
    rows.push(ignored.slice(at, at + 6).join(' | '));
  }
  return rows.map((row, index) => `  ${index === 0 ? 'ignores:' : '        '} ${row}`);
}

function run(events: readonly Event[], from: State = INITIAL): Step {
  return events.reduce<Step>(({ state }, event) => step(state, event, LIMITS), {
    state: from,
    effects: [],
  });
}

describe('the SR-IOV machine', () => {
  it('answers every event in every phase like this', () => {
    expect(matrix()).toMatchInlineSnapshot(`
      "disabled
        vfEnableSet 3 -> creating #5: createVfs #5 of 3; beginEnable #5 of 3; placeVfs #5 of 3
        vfEnableSet 9 of 8 -> disabled failure: warn
        vfEnableSet, obstacle -> disabled failure: warn
        ignores: vfEnableSet 0 | vfEnableCleared | vfsCreated | createFailed | bringUpFailed | plugAnswered
                 plugDeadlinePassed | unplugAnswered | unplugDeadlinePassed | vfsReleased | vfsDestroyed | destroyFailed
                 retryDue | peerDetached | vfLost
      creating
        vfEnableCleared -> creating #5 cancelled: endEnable #5 failed
        vfsCreated -> plugging #5 waits for 0,1: plugVfs #5 of 2; timer plugDeadlinePassed #5 100
        createFailed -> disabled failure: warn; endEnable #5 failed
        bringUpFailed -> releasing #5 failure: warn; endEnable #5 failed; releaseVfs
        plugAnswered 1, refused -> creating #5 cancelled failure: warn; endEnable #5 failed
        peerDetached -> creating #5 cancelled failure: warn; endEnable #5 failed
        vfLost 1 -> creating #5 cancelled failure: warn; endEnable #5 failed
        ignores: vfEnableSet | plugAnswered 1 | plugAnswered 1, generation 4 | plugDeadlinePassed | unplugAnswered | unplugDeadlinePassed
                 vfsReleased | vfsDestroyed | destroyFailed | retryDue
      creating, cancelled
        vfEnableSet 3 -> creating #5 cancelled wish #6: beginEnable #6 of 3
        vfEnableSet 9 of 8 -> creating #5 cancelled failure: warn
        vfEnableSet, obstacle -> creating #5 cancelled failure: warn
        vfsCreated -> releasing #5: releaseVfs
        createFailed -> disabled: warn
        bringUpFailed -> releasing #5: warn; releaseVfs
        ignores: vfEnableSet 0 | vfEnableCleared | plugAnswered | plugDeadlinePassed | unplugAnswered | unplugDeadlinePassed
                 vfsReleased | vfsDestroyed | destroyFailed | retryDue | peerDetached | vfLost
      creating, cancelled, wish
        vfEnableCleared -> creating #5 cancelled: endEnable #6 failed
        vfsCreated -> releasing #5 wish #6: releaseVfs
        createFailed -> creating #6: warn; createVfs #6 of 3; placeVfs #6 of 3
        bringUpFailed -> releasing #5 wish #6: warn; releaseVfs
        peerDetached -> creating #5 cancelled failure: endEnable #6 failed
        ignores: vfEnableSet | plugAnswered | plugDeadlinePassed | unplugAnswered | unplugDeadlinePassed | vfsReleased
                 vfsDestroyed | destroyFailed | retryDue | vfLost
      plugging
        vfEnableCleared -> unplugging #5 waits for 0,1: deactivateVfs; endEnable #5 failed; unplugVfs #5 0,1 guestDisabled; timer unplugDeadlinePassed #5 200
        plugAnswered 1 -> plugging #5 waits for 0
        plugAnswered 1, refused -> unplugging #5 waits for 0 failure: deactivateVfs; warn; endEnable #5 failed; unplugVfs #5 0 vfLost; timer unplugDeadlinePassed #5 200
        plugDeadlinePassed -> unplugging #5 waits for 0,1 failure: deactivateVfs; warn; endEnable #5 failed; unplugVfs #5 0,1 vfLost; timer unplugDeadlinePassed #5 200
        peerDetached -> releasing #5 failure: deactivateVfs; endEnable #5 failed; releaseVfs
        vfLost 1 -> unplugging #5 waits for 0,1 failure: deactivateVfs; warn; endEnable #5 failed; unplugVfs #5 0,1 vfLost; timer unplugDeadlinePassed #5 200
        ignores: vfEnableSet | vfsCreated | createFailed | bringUpFailed | plugAnswered 1, generation 4 | plugDeadlinePassed, generation 4
                 unplugAnswered | unplugDeadlinePassed | vfsReleased | vfsDestroyed | destroyFailed | retryDue
      plugging, last one
        vfEnableCleared -> unplugging #5 waits for 0,1: deactivateVfs; endEnable #5 failed; unplugVfs #5 0,1 guestDisabled; timer unplugDeadlinePassed #5 200
        plugAnswered 1 -> enabled #5: activateVfs 2; endEnable #5 enabled
        plugAnswered 1, refused -> unplugging #5 waits for 0 failure: deactivateVfs; warn; endEnable #5 failed; unplugVfs #5 0 vfLost; timer unplugDeadlinePassed #5 200
        plugDeadlinePassed -> unplugging #5 waits for 0,1 failure: deactivateVfs; warn; endEnable #5 failed; unplugVfs #5 0,1 vfLost; timer unplugDeadlinePassed #5 200
        peerDetached -> releasing #5 failure: deactivateVfs; endEnable #5 failed; releaseVfs
        vfLost 1 -> unplugging #5 waits for 0,1 failure: deactivateVfs; warn; endEnable #5 failed; unplugVfs #5 0,1 vfLost; timer unplugDeadlinePassed #5 200
        ignores: vfEnableSet | vfsCreated | createFailed | bringUpFailed | plugAnswered 1, generation 4 | plugDeadlinePassed, generation 4
                 unplugAnswered | unplugDeadlinePassed | vfsReleased | vfsDestroyed | destroyFailed | retryDue
      enabled
        vfEnableCleared -> unplugging #5 waits for 0,1: deactivateVfs; unplugVfs #5 0,1 guestDisabled; timer unplugDeadlinePassed #5 200
        vfLost 1 -> unplugging #5 waits for 0,1 failure: deactivateVfs; warn; unplugVfs #5 0,1 vfLost; timer unplugDeadlinePassed #5 200
        ignores: vfEnableSet | vfsCreated | createFailed | bringUpFailed | plugAnswered | plugDeadlinePassed
                 unplugAnswered | unplugDeadlinePassed | vfsReleased | vfsDestroyed | destroyFailed | retryDue
                 peerDetached
      unplugging
        vfEnableSet 3 -> unplugging #5 waits for 0,1 wish #6: beginEnable #6 of 3
        vfEnableSet 9 of 8 -> unplugging #5 waits for 0,1 failure: warn
        vfEnableSet, obstacle -> unplugging #5 waits for 0,1 failure: warn
        unplugAnswered 1 -> unplugging #5 waits for 0
        unplugAnswered 1, refused -> unplugging #5 waits for 0,1: warn
        unplugDeadlinePassed, slots -> releasing #5: releaseVfs
        unplugDeadlinePassed, VMM holds -> quarantined #5 waits for 0,1: warn; timer retryDue #5 300
        peerDetached -> releasing #5: releaseVfs
        ignores: vfEnableSet 0 | vfEnableCleared | vfsCreated | createFailed | bringUpFailed | plugAnswered
                 plugDeadlinePassed | unplugAnswered 1, generation 4 | unplugDeadlinePassed, generation 4 | vfsReleased | vfsDestroyed | destroyFailed
                 retryDue | vfLost
      unplugging, last one, wish
        vfEnableCleared -> unplugging #5 waits for 1: endEnable #6 failed
        unplugAnswered 1 -> releasing #5 wish #6: releaseVfs
        unplugAnswered 1, refused -> unplugging #5 waits for 1 wish #6: warn
        unplugDeadlinePassed, slots -> releasing #5 wish #6: releaseVfs
        unplugDeadlinePassed, VMM holds -> quarantined #5 waits for 1 failure: warn; endEnable #6 failed; timer retryDue #5 300
        peerDetached -> releasing #5 failure: endEnable #6 failed; releaseVfs
        ignores: vfEnableSet | vfsCreated | createFailed | bringUpFailed | plugAnswered | plugDeadlinePassed
                 unplugAnswered 1, generation 4 | unplugDeadlinePassed, generation 4 | vfsReleased | vfsDestroyed | destroyFailed | retryDue
                 vfLost
      releasing
        vfEnableSet 3 -> releasing #5 wish #6: beginEnable #6 of 3
        vfEnableSet 9 of 8 -> releasing #5 failure: warn
        vfEnableSet, obstacle -> releasing #5 failure: warn
        vfsReleased, none held -> destroying #5: destroyVfs
        vfsReleased, 1 held -> quarantined #5 waits for nobody: warn; timer retryDue #5 300
        ignores: vfEnableSet 0 | vfEnableCleared | vfsCreated | createFailed | bringUpFailed | plugAnswered
                 plugDeadlinePassed | unplugAnswered | unplugDeadlinePassed | vfsDestroyed | destroyFailed | retryDue
                 peerDetached | vfLost
      releasing, wish
        vfEnableCleared -> releasing #5: endEnable #6 failed
        vfsReleased, none held -> destroying #5 wish #6: destroyVfs
        vfsReleased, 1 held -> quarantined #5 waits for nobody failure: warn; endEnable #6 failed; timer retryDue #5 300
        peerDetached -> releasing #5 failure: endEnable #6 failed
        ignores: vfEnableSet | vfsCreated | createFailed | bringUpFailed | plugAnswered | plugDeadlinePassed
                 unplugAnswered | unplugDeadlinePassed | vfsDestroyed | destroyFailed | retryDue | vfLost
      quarantined, VMM silent
        vfEnableSet 3 -> quarantined #5 waits for 1 failure: warn
        vfEnableSet 9 of 8 -> quarantined #5 waits for 1 failure: warn
        vfEnableSet, obstacle -> quarantined #5 waits for 1 failure: warn
        unplugAnswered 1 -> releasing #5: releaseVfs
        retryDue -> quarantined #5 waits for 1: timer retryDue #5 300
        peerDetached -> releasing #5: releaseVfs
        ignores: vfEnableSet 0 | vfEnableCleared | vfsCreated | createFailed | bringUpFailed | plugAnswered
                 plugDeadlinePassed | unplugAnswered 1, generation 4 | unplugAnswered 1, refused | unplugDeadlinePassed | vfsReleased | vfsDestroyed
                 destroyFailed | retryDue, generation 4 | vfLost
      quarantined, held
        vfEnableSet 3 -> quarantined #5 waits for nobody failure: warn
        vfEnableSet 9 of 8 -> quarantined #5 waits for nobody failure: warn
        vfEnableSet, obstacle -> quarantined #5 waits for nobody failure: warn
        retryDue -> releasing #5: releaseVfs
        ignores: vfEnableSet 0 | vfEnableCleared | vfsCreated | createFailed | bringUpFailed | plugAnswered
                 plugDeadlinePassed | unplugAnswered | unplugDeadlinePassed | vfsReleased | vfsDestroyed | destroyFailed
                 retryDue, generation 4 | peerDetached | vfLost
      destroying
        vfEnableSet 3 -> destroying #5 wish #6: beginEnable #6 of 3
        vfEnableSet 9 of 8 -> destroying #5 failure: warn
        vfEnableSet, obstacle -> destroying #5 failure: warn
        vfsDestroyed -> disabled
        destroyFailed -> quarantined #5 waits for nobody: warn; timer retryDue #5 300
        ignores: vfEnableSet 0 | vfEnableCleared | vfsCreated | createFailed | bringUpFailed | plugAnswered
                 plugDeadlinePassed | unplugAnswered | unplugDeadlinePassed | vfsReleased | retryDue | peerDetached
                 vfLost
      destroying, wish
        vfEnableCleared -> destroying #5: endEnable #6 failed
        vfsDestroyed -> creating #6: createVfs #6 of 3; placeVfs #6 of 3
        destroyFailed -> quarantined #5 waits for nobody failure: warn; endEnable #6 failed; timer retryDue #5 300
        peerDetached -> destroying #5 failure: endEnable #6 failed
        ignores: vfEnableSet | vfsCreated | createFailed | bringUpFailed | plugAnswered | plugDeadlinePassed
                 unplugAnswered | unplugDeadlinePassed | vfsReleased | retryDue | vfLost"
    `);
  });

  it('latches NumVFs once: teardown takes as many VFs away as were made', () => {
    const enabled = run([
      { type: 'vfEnableSet', numVfs: 2 },
      { type: 'vfsCreated' },
      { type: 'plugAnswered', vfIndex: 0, generation: 1 },
      { type: 'plugAnswered', vfIndex: 1, generation: 1 },
      { type: 'vfEnableSet', numVfs: 7 },
    ]);
    expect(enabled.state).toMatchObject({ phase: 'enabled', count: 2 });
    const { effects } = run([{ type: 'vfEnableCleared', reason: 'guestDisabled' }], enabled.state);
    expect(effects).toContainEqual(expect.objectContaining({ vfIndexes: [0, 1] }));
  });

  it('tells the VMM why VFs go, and how long it may take', () => {
    const { effects } = step(
      STATES.enabled!,
      { type: 'vfEnableCleared', reason: 'pfReset' },
      LIMITS,
    );
    expect(effects).toContainEqual({
      type: 'unplugVfs',
      generation: 5,
      vfIndexes: [0, 1],
      reason: 'pfReset',
      deadlineMilliseconds: 200,
    });
  });

  it('leaves the VF that the client refused out of what it unplugs, and says which it was', () => {
    const { state, effects } = step(STATES.plugging!, EVENTS['plugAnswered 1, refused']!, LIMITS);
    expect(effects).toContainEqual(expect.objectContaining({ type: 'unplugVfs', vfIndexes: [0] }));
    expect(state).toMatchObject({ failure: 'VF 1 was refused: ENOMEM' });
  });

  it('goes straight to releasing when the only VF was refused', () => {
    const { state, effects } = run([
      { type: 'vfEnableSet', numVfs: 1 },
      { type: 'vfsCreated' },
      { type: 'plugAnswered', vfIndex: 0, generation: 1, refusal: 'ENOMEM' },
    ]);
    expect(state.phase).toBe('releasing');
    expect(effects.map(({ type }) => type)).not.toContain('unplugVfs');
  });

  it('names every holder in what it says of a quarantine, once', () => {
    const held = [...HELD, { vfIndex: 3, holder: 'vt (262)' }];
    const first = step(STATES.releasing!, { type: 'vfsReleased', held }, LIMITS);
    const text = expect.stringMatching(/VF 1 is held by pid 7; VF 3 is held by vt \(262\)/);
    expect(first.effects[0]).toEqual({ type: 'report', level: 'warn', text });
    const again = run(
      [
        { type: 'retryDue', generation: 5 },
        { type: 'vfsReleased', held },
      ],
      first.state,
    );
    expect(again.state.phase).toBe('quarantined');
    expect(again.effects.map(({ type }) => type)).not.toContain('report');
  });

  it('knows why an enable failed until the next one, whatever the guest clears', () => {
    const failed = run([
      { type: 'vfEnableSet', numVfs: 1, obstacle: 'no glue' },
      { type: 'vfEnableCleared', reason: 'guestDisabled' },
    ]);
    expect(failed.state).toMatchObject({ phase: 'disabled', failure: 'no glue' });
    const next = run([{ type: 'vfEnableSet', numVfs: 1 }], failed.state);
    expect(next.state).toMatchObject({ phase: 'creating' });
    expect(next.state).not.toHaveProperty('failure');
  });

  it('knows it also of an enable that waited for the VFs before it', () => {
    const { state } = run(
      [{ type: 'peerDetached' }, { type: 'vfsDestroyed' }],
      STATES['destroying, wish']!,
    );
    expect(state).toMatchObject({ phase: 'disabled', failure: PEER_GONE });
    const refused = run(
      [
        { type: 'vfEnableSet', numVfs: 9 },
        { type: 'vfEnableSet', numVfs: 3 },
        { type: 'vfEnableCleared', reason: 'guestDisabled' },
      ],
      STATES.destroying!,
    );
    expect(refused.state).not.toHaveProperty('failure');
  });

  it('takes a quarantine for the failure of an enable only where one was wanted', () => {
    const endOf = (event: Event) =>
      run(
        [event, { type: 'retryDue', generation: 5 }, FREE, { type: 'vfsDestroyed' }],
        step(STATES.releasing!, { type: 'vfsReleased', held: HELD }, LIMITS).state,
      ).state;
    expect(endOf({ type: 'vfEnableCleared', reason: 'guestDisabled' })).not.toHaveProperty(
      'failure',
    );
    expect(endOf({ type: 'vfEnableSet', numVfs: 1 })).toMatchObject({
      phase: 'disabled',
      failure: expect.stringContaining('VF 1 is held by pid 7'),
    });
  });

  it('gives every enable a generation of its own, also one that never gets its VFs', () => {
    const { state } = run([
      { type: 'vfEnableSet', numVfs: 2 },
      { type: 'vfEnableCleared', reason: 'guestDisabled' },
      { type: 'vfEnableSet', numVfs: 3 },
      { type: 'vfEnableCleared', reason: 'guestDisabled' },
      { type: 'vfEnableSet', numVfs: 4 },
      { type: 'createFailed', text: 'ENOSPC' },
    ]);
    expect(state).toMatchObject({ phase: 'creating', count: 4, generation: 3 });
  });

  it('takes the wish of a guest that enables again early, once the VFs before are gone', () => {
    const { state, effects } = step(STATES['destroying, wish']!, { type: 'vfsDestroyed' }, LIMITS);
    expect(state).toMatchObject({ phase: 'creating', count: 3, generation: 6, cancelled: false });
    expect(effects).toEqual([
      { type: 'createVfs', generation: 6, count: 3 },
      { type: 'placeVfs', generation: 6, count: 3 },
    ]);
  });

  it('says in which states an enable may still get its VFs', () => {
    const hopeful = Object.keys(STATES).filter((name) => isBringingUp(STATES[name]!));
    expect(hopeful).toEqual([
      'creating',
      'creating, cancelled, wish',
      'plugging',
      'plugging, last one',
      'unplugging, last one, wish',
      'releasing, wish',
      'destroying, wish',
    ]);
  });
});
