import { beforeEach, describe, expect, it, vi } from 'vitest';
import { SriovRunner, type VfBank } from '../../../backend/hotplug/runner.ts';
import type { Limits } from '../../../backend/sriov/states-and-events.ts';
import { KernelHost } from '../../fakes/kernel-host.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';
import { ScriptedVmm } from '../../fakes/scripted-vmm.ts';

const LIMITS: Limits = {
  totalVfs: 8,
  plugMilliseconds: 1000,
  unplugMilliseconds: 2000,
  retryMilliseconds: 500,
};
const VMM = 'the VMM';

let host: KernelHost;
let clock: ManualClock;
let vmm: ScriptedVmm;
let runner: SriovRunner;
let reports: string[];
/** What happened to the VFs that the guest sees, in order. */
let bank: string[];
let bringUp: () => void;
/** What the guest sees of the VFs. */
let seenVfs: VfBank;

beforeEach(() => {
  host = new KernelHost();
  clock = new ManualClock();
  reports = [];
  bank = [];
  bringUp = () => {};
  vmm = new ScriptedVmm((event) => runner.dispatch(event));
  // As a VMM with hot-plug does: it opens what it is given, and closes it before it answers.
  vmm.onTold = ({ kind, vfIndex }) => {
    if (kind === 'plug') {
      host.hold(vfIndex!, VMM);
    }
    if (kind === 'unplug') {
      host.letGo(vfIndex!, VMM);
    }
  };
  seenVfs = {
    handMemoryToHost: (_count, done) => done(),
    bringUp: (handles, _generation, done) => {
      bringUp();
      bank.push(`up ${handles.length}`);
      done();
    },
    activate: (count) => bank.push(`activate ${count}`),
    deactivate: () => bank.push('deactivate'),
    takeDown: (unmapped) => {
      bank.push('down');
      unmapped();
    },
  };
  runner = new SriovRunner({
    host,
    peer: vmm,
    vfs: seenVfs,
    limits: LIMITS,
    clock,
    report: (level, text) => reports.push(`${level}: ${text}`),
  });
});

function enable(numVfs = 2): void {
  runner.dispatch({ type: 'vfEnableSet', numVfs });
  host.settle();
}

function disable(): void {
  runner.dispatch({ type: 'vfEnableCleared', reason: 'guestDisabled' });
  host.settle();
}

/** Ends each test: the guest can still use SR-IOV, and the kernel was never made to wait. */
function expectHealthy(): void {
  expect(host.everStuck).toBe(false);
  Object.assign(vmm, { attached: true, answersPlugs: true, answersUnplugs: true });
  enable(3);
  expect(runner.state).toMatchObject({ phase: 'enabled', count: 3 });
  disable();
  expect(runner.state).toMatchObject({ phase: 'disabled' });
  expect(host.count).toBe(0);
  expect(host.everStuck).toBe(false);
}

describe('an enable and a disable', () => {
  it('go through in the order in which the host and the VMM need them', () => {
    enable();
    disable();
    expect(host.asked).toEqual(['createVfs', 'releaseVfs', 'destroyVfs']);
    expect(vmm.told.map(({ kind, vfIndex }) => `${kind} ${vfIndex ?? ''}`.trim())).toEqual([
      'begin',
      'plug 0',
      'plug 1',
      'end',
      'unplug 0',
      'unplug 1',
    ]);
    expect(bank).toEqual(['up 2', 'activate 2', 'activate 2', 'deactivate', 'down']);
    expectHealthy();
  });

  it('show a slot to the guest only when all of them are placed', () => {
    vmm.holdsVfs = false;
    vmm.answersPlugs = false;
    enable();
    vmm.answerPlug(0, 1);
    expect(bank).toEqual(['up 2']);
    vmm.answerPlug(1, 1);
    expect(bank).toEqual(['up 2', 'activate 2']);
  });

  it('close our own references before they ask the host to remove anything', () => {
    enable();
    vmm.answersUnplugs = false;
    disable();
    expect(host.holdersOf(0)).toEqual(['backend']);
    vmm.answerUnplug(0, 1);
    vmm.answerUnplug(1, 1);
    host.settle();
    expect(bank.slice(-2)).toEqual(['deactivate', 'down']);
    expect(host.count).toBe(0);
    expectHealthy();
  });

  it('take an event that an effect causes after all effects of the event at hand', () => {
    vmm.onTold = ({ kind }) => {
      if (kind === 'begin') {
        runner.dispatch({ type: 'vfEnableCleared', reason: 'pfReset' });
      }
    };
    runner.dispatch({ type: 'vfEnableSet', numVfs: 2 });
    expect(host.asked).toEqual(['createVfs']);
    expect(runner.state).toMatchObject({ phase: 'creating', cancelled: true });
    host.settle();
    expect(runner.state.phase).toBe('disabled');
  });
});

describe('a host that fails', () => {
  it('to make VFs: the enable ends as failed and nothing is left', () => {
    host.failNext('createVfs', 'No space left on device');
    enable();
    expect(runner.state).toMatchObject({ phase: 'disabled' });
    expect(vmm.told.at(-1)).toMatchObject({ kind: 'end', outcome: 'failed' });
    expect(vmm.told.at(-1)?.text).toMatch(/No space left on device/);
    expect(reports.join()).toMatch(/could not make 2 VFs.*No space left/);
    expectHealthy();
  });

  it('to give VFs that can be used: they are released and removed again', () => {
    bringUp = () => {
      throw new Error('VFIO_DEVICE_SET_IRQS function 1: EMFILE');
    };
    enable();
    expect(runner.state).toMatchObject({
      phase: 'disabled',
      failure: expect.stringMatching(/EMFILE/),
    });
    expect(host.asked).toEqual(['createVfs', 'releaseVfs', 'destroyVfs']);
    expect(bank).toEqual(['down']);
    expect(vmm.told.map(({ kind }) => kind)).toEqual(['begin', 'end']);
    bringUp = () => {};
    expectHealthy();
  });

  it('to release VFs: they stay in quarantine until it can', () => {
    enable();
    host.failNext('releaseVfs', 'Input/output error');
    disable();
    expect(runner.state).toMatchObject({
      phase: 'quarantined',
      held: [{ vfIndex: expect.any(Number), holder: expect.stringMatching(/Input\/output error/) }],
    });
    expect(host.asked).not.toContain('destroyVfs');
    clock.elapse(LIMITS.retryMilliseconds);
    host.settle();
    expect(runner.state.phase).toBe('disabled');
    expectHealthy();
  });

  it('to remove VFs: it is asked again, after it has said once more that nobody holds them', () => {
    enable();
    host.failNext('destroyVfs', 'Device or resource busy');
    disable();
    expect(runner.state).toMatchObject({
      phase: 'quarantined',
      held: [{ vfIndex: expect.any(Number), holder: expect.stringMatching(/resource busy/) }],
    });
    clock.elapse(LIMITS.retryMilliseconds);
    host.settle();
    expect(runner.state.phase).toBe('disabled');
    expect(host.asked.slice(-2)).toEqual(['releaseVfs', 'destroyVfs']);
    expectHealthy();
  });
});

describe('an effect that throws', () => {
  function fail(): never {
    throw new Error('too many open files');
  }

  it.each<[string, () => void]>([
    [
      'to lend the VFs’ memory',
      () => vi.spyOn(seenVfs, 'handMemoryToHost').mockImplementationOnce(fail),
    ],
    [
      'to lend the last of the VFs’ memory',
      () =>
        vi
          .spyOn(seenVfs, 'handMemoryToHost')
          .mockImplementationOnce((_count, done) => done(new Error('too many open files'))),
    ],
    [
      'to tell the VMM of the enable',
      () => vi.spyOn(vmm, 'beginEnable').mockImplementationOnce(fail),
    ],
    ['to place the VFs', () => vi.spyOn(vmm, 'place').mockImplementationOnce(fail)],
    ['to plug one of them', () => vi.spyOn(vmm, 'plug').mockImplementationOnce(fail)],
  ])('is a failed enable where it was %s; the next one works', (_, break_) => {
    break_();
    enable();
    expect(runner.state).toMatchObject({
      phase: 'disabled',
      failure: expect.stringContaining('too many open files'),
    });
    expect(reports.join()).toContain('too many open files');
    expectHealthy();
  });

  it('leaves VFs in quarantine where it was to take them down, until that works', () => {
    enable();
    vi.spyOn(seenVfs, 'takeDown').mockImplementationOnce(fail);
    disable();
    expect(runner.state.phase).toBe('quarantined');
    clock.elapse(LIMITS.retryMilliseconds);
    host.settle();
    expectHealthy();
  });

  it('does not keep VFs from going where it was to unplug them', () => {
    enable();
    vi.spyOn(vmm, 'unplug').mockImplementationOnce(fail);
    disable();
    clock.elapse(LIMITS.unplugMilliseconds);
    vmm.answerUnplug(0, 1);
    vmm.answerUnplug(1, 1);
    host.letGo(0, VMM);
    host.letGo(1, VMM);
    clock.elapse(10 * LIMITS.retryMilliseconds);
    host.settle();
    expect(runner.state.phase).toBe('disabled');
  });
});

describe('an enable that is over', () => {
  it('leaves no timer behind, however it went', () => {
    for (let turn = 0; turn < 20; turn++) {
      vmm.answersPlugs = turn % 2 === 0;
      enable();
      disable();
    }
    expect(runner.state.phase).toBe('disabled');
    expect(clock.pending).toBe(0);
  });

  it('and waits for a VF that is held, has one timer', () => {
    enable();
    host.failNext('releaseVfs', 'Input/output error');
    disable();
    expect(runner.state.phase).toBe('quarantined');
    expect(clock.pending).toBe(1);
  });
});

describe('a VMM that opens VFs itself', () => {
  it('and never answers VfUnplug: nothing is removed, ever, and the guest’s next enable fails', () => {
    vmm.answersUnplugs = false;
    vmm.onTold = ({ kind, vfIndex }) => kind === 'plug' && host.hold(vfIndex!, VMM);
    enable();
    disable();
    clock.elapse(3_600_000);
    host.settle();
    expect(runner.state).toMatchObject({ phase: 'quarantined', unanswered: [0, 1] });
    expect(host.asked).toEqual(['createVfs']);
    enable();
    expect(runner.state.phase).toBe('quarantined');
    expect(reports.at(-1)).toMatch(/VF Enable failed: .*VF 0 is held by the VMM/);
    expect(host.everStuck).toBe(false);
  });

  it('and answers late: the VFs are removed then', () => {
    vmm.answersUnplugs = false;
    enable();
    disable();
    clock.elapse(LIMITS.unplugMilliseconds);
    expect(runner.state.phase).toBe('quarantined');
    vmm.answerUnplug(1, 1);
    expect(host.asked).not.toContain('releaseVfs');
    vmm.answerUnplug(0, 1);
    host.settle();
    expect(runner.state.phase).toBe('disabled');
    expectHealthy();
  });

  it('and answers for another generation: that does not count', () => {
    vmm.answersUnplugs = false;
    enable();
    disable();
    vmm.answerUnplug(0, 7);
    vmm.answerUnplug(1, 0);
    host.settle();
    expect(runner.state).toMatchObject({ phase: 'unplugging', unanswered: [0, 1] });
    expect(host.asked).toEqual(['createVfs']);
  });

  it('and refuses to let go: it is as if it had not answered', () => {
    vmm.answersUnplugs = false;
    enable();
    disable();
    vmm.answerUnplug(0, 1, 'EBUSY');
    vmm.answerUnplug(1, 1);
    host.settle();
    expect(runner.state).toMatchObject({ phase: 'unplugging', unanswered: [0] });
    clock.elapse(LIMITS.unplugMilliseconds);
    expect(runner.state).toMatchObject({ phase: 'quarantined', unanswered: [0] });
    expect(host.asked).toEqual(['createVfs']);
  });

  it('and dies in the middle, which closes its files: the VFs are removed', () => {
    vmm.answersUnplugs = false;
    vmm.onTold = ({ kind, vfIndex }) => kind === 'plug' && host.hold(vfIndex!, VMM);
    enable();
    runner.dispatch({ type: 'vfEnableCleared', reason: 'guestDisabled' });
    vmm.answerUnplug(0, 1);
    host.letGo(0, VMM);
    host.letGo(1, VMM);
    vmm.leave();
    host.settle();
    expect(runner.state.phase).toBe('disabled');
    expect(host.everStuck).toBe(false);
  });

  it('and is gone but for a file that a child of it inherited: quarantine until the child ends', () => {
    vmm.onTold = ({ kind, vfIndex }) => kind === 'plug' && host.hold(vfIndex!, 'its child (99)');
    enable();
    vmm.leave();
    runner.dispatch({ type: 'vfEnableCleared', reason: 'pfReset' });
    host.settle();
    expect(runner.state).toMatchObject({
      phase: 'quarantined',
      held: expect.arrayContaining([{ vfIndex: 1, holder: 'its child (99)' }]),
    });
    host.letGo(0, 'its child (99)');
    host.letGo(1, 'its child (99)');
    clock.elapse(LIMITS.retryMilliseconds);
    host.settle();
    expect(runner.state.phase).toBe('disabled');
    vmm.onTold = () => {};
    expectHealthy();
  });

  it('says done and keeps a mapping: quarantine, and removed as soon as the mapping is gone', () => {
    vmm.onTold = ({ kind, vfIndex }) =>
      kind === 'plug' && host.hold(vfIndex!, 'vt (262), a mapping');
    enable();
    host.letGo(0, 'vt (262), a mapping');
    disable();
    expect(runner.state).toMatchObject({
      phase: 'quarantined',
      held: [{ vfIndex: 1, holder: 'vt (262), a mapping' }],
    });
    clock.elapse(10 * LIMITS.retryMilliseconds);
    host.settle();
    expect(runner.state.phase).toBe('quarantined');
    expect(host.asked).not.toContain('destroyVfs');
    host.letGo(1, 'vt (262), a mapping');
    clock.elapse(LIMITS.retryMilliseconds);
    host.settle();
    expect(runner.state.phase).toBe('disabled');
    vmm.onTold = () => {};
    expectHealthy();
  });

  it('dies while VFs are being made: none is plugged, and they are removed', () => {
    runner.dispatch({ type: 'vfEnableSet', numVfs: 2 });
    vmm.leave();
    host.settle();
    expect(runner.state).toMatchObject({
      phase: 'disabled',
      failure: expect.stringMatching(/disconnected/),
    });
    expect(vmm.told.map(({ kind }) => kind)).toEqual(['begin']);
    expectHealthy();
  });

  it('and was replaced while VFs were being made gets no VF of an enable that it was not told of', () => {
    runner.dispatch({ type: 'vfEnableSet', numVfs: 2 });
    vmm.leave();
    vmm.attached = true;
    vmm.told.length = 0;
    host.settle();
    expect(vmm.told).toEqual([]);
    expect(runner.state.phase).toBe('disabled');
    expectHealthy();
  });

  it('does not answer VfPlug: the VFs are taken away again and the enable has failed', () => {
    vmm.answersPlugs = false;
    enable();
    clock.elapse(LIMITS.plugMilliseconds);
    host.settle();
    expect(runner.state).toMatchObject({
      phase: 'disabled',
      failure: expect.stringMatching(/VF 0, 1 was not answered/),
    });
    expect(vmm.told.map(({ kind }) => kind)).toEqual([
      'begin',
      'plug',
      'plug',
      'end',
      'unplug',
      'unplug',
    ]);
    expectHealthy();
  });

  it('answers VfPlug after its deadline: that changes nothing', () => {
    vmm.answersPlugs = false;
    vmm.answersUnplugs = false;
    enable();
    clock.elapse(LIMITS.plugMilliseconds);
    vmm.answerPlug(0, 1);
    vmm.answerPlug(1, 1);
    expect(runner.state).toMatchObject({ phase: 'unplugging', unanswered: [0, 1] });
    expect(bank).not.toContain('activate 8');
  });

  it('is gone before it can be given VFs: the enable fails at once', () => {
    vmm.attached = false;
    enable();
    expect(runner.state).toMatchObject({
      phase: 'disabled',
      failure: expect.stringMatching(/disconnected/),
    });
    expectHealthy();
  });
});

describe('slots', () => {
  beforeEach(() => {
    vmm.holdsVfs = false;
    vmm.onTold = () => {};
  });

  it('are taken back without the glue’s answer, because the VMM has no VF open', () => {
    vmm.answersUnplugs = false;
    enable();
    disable();
    expect(host.count).toBe(2);
    clock.elapse(LIMITS.unplugMilliseconds);
    host.settle();
    expect(runner.state.phase).toBe('disabled');
    expect(host.everStuck).toBe(false);
  });

  it('go on working when the glue leaves, and are taken away without it', () => {
    enable();
    vmm.leave();
    host.settle();
    expect(runner.state.phase).toBe('enabled');
    disable();
    expect(runner.state.phase).toBe('disabled');
    expect(host.count).toBe(0);
    expectHealthy();
  });
});

describe('a guest in a hurry', () => {
  it('gets its VFs when it enables again while the old ones are still being taken away', () => {
    vmm.answersUnplugs = false;
    enable(2);
    runner.dispatch({ type: 'vfEnableCleared', reason: 'guestDisabled' });
    runner.dispatch({ type: 'vfEnableSet', numVfs: 5 });
    expect(vmm.told.at(-1)).toMatchObject({ kind: 'begin', generation: 2, count: 5 });
    for (const vfIndex of [0, 1]) {
      host.letGo(vfIndex, VMM);
      vmm.answerUnplug(vfIndex, 1);
    }
    host.settle();
    expect(runner.state).toMatchObject({ phase: 'enabled', count: 5, generation: 2 });
    expect(host.everStuck).toBe(false);
  });

  it('is told that it failed when the old ones do not go away in time', () => {
    vmm.answersUnplugs = false;
    enable(2);
    runner.dispatch({ type: 'vfEnableCleared', reason: 'guestDisabled' });
    runner.dispatch({ type: 'vfEnableSet', numVfs: 5 });
    clock.elapse(LIMITS.unplugMilliseconds);
    host.settle();
    expect(vmm.told.at(-1)).toMatchObject({ kind: 'end', generation: 2, outcome: 'failed' });
    expect(runner.state.phase).toBe('quarantined');
    expect(host.asked).toEqual(['createVfs']);
  });

  it('that toggles VF Enable while VFs are being made ends where it stopped', () => {
    runner.dispatch({ type: 'vfEnableSet', numVfs: 1 });
    for (let round = 0; round < 5; round++) {
      runner.dispatch({ type: 'vfEnableCleared', reason: 'guestDisabled' });
      runner.dispatch({ type: 'vfEnableSet', numVfs: 4 });
    }
    host.settle();
    expect(runner.state).toMatchObject({ phase: 'enabled', count: 4 });
    expect(host.asked).toEqual(['createVfs', 'releaseVfs', 'destroyVfs', 'createVfs']);
    disable();
    expectHealthy();
  });
});

describe('a VF that the kernel wants back', () => {
  it('takes all VFs of the enable with it', () => {
    enable();
    runner.dispatch({ type: 'vfLost', vfIndex: 1 });
    host.settle();
    expect(vmm.told.filter(({ kind }) => kind === 'unplug')).toEqual([
      { kind: 'unplug', generation: 1, vfIndex: 0, reason: 'vfLost' },
      { kind: 'unplug', generation: 1, vfIndex: 1, reason: 'vfLost' },
    ]);
    expect(runner.state).toMatchObject({
      phase: 'disabled',
      failure: expect.stringMatching(/wants VF 1 back/),
    });
    expectHealthy();
  });
});
