import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { titleOf } from '../../../backend/pci/spec/titles.ts';
import type { TraceEvent } from '../../../protocol/trace/events.ts';
import { explanationLines } from '../../../vmm-glue/trace/explain/explanation-lines.ts';
import { findingLine, RULES } from '../../../vmm-glue/trace/explain/rules.ts';
import { explain, GuestScript, seen } from './guest-script.ts';
import { DESCRIPTION } from './ring.ts';

const script = (mode?: 'glue' | 'vmm' | 'none'): GuestScript => new GuestScript(mode);

/** Each rule with a driver that breaks it and one, as like it as can be, that does not. */
const CASES: readonly [rule: string, broken: () => GuestScript, kept: () => GuestScript][] = [
  [
    'enable-wait',
    () => script().read('SR-IOV NumVFs', 1).write('SR-IOV Control', 9).after(77).useVf(0),
    () => script().read('SR-IOV NumVFs', 1).write('SR-IOV Control', 9).after(79).useVf(0),
  ],
  [
    'disable-wait',
    () => script().enable().read('Command', 0).disable().after(950).write('SR-IOV NumVFs', 0),
    () => script().enable().read('Command', 0).disable().after(965).write('SR-IOV NumVFs', 0),
  ],
  [
    'numvfs-while-enabled',
    () => script().enable().write('SR-IOV NumVFs', 3),
    () => script().enable().disable().after(1001).write('SR-IOV NumVFs', 3),
  ],
  [
    'numvfs-above-totalvfs',
    () => script().write('SR-IOV NumVFs', 5),
    () => script().write('SR-IOV NumVFs', 4),
  ],
  [
    'vf-not-ready',
    () => script().enable().useVf(0).reset('vf0', 'function').after(70).useVf(0),
    () => script().enable().useVf(0).reset('vf0', 'function').after(101).useVf(0),
  ],
  [
    'vf-bars-under-mse',
    () => script().enable().write('SR-IOV VF BAR 0', 0xfe00_0000),
    () => script().write('SR-IOV VF BAR 0', 0xfe00_0000).enable(),
  ],
  [
    'page-size-while-enabled',
    () => script().enable().write('SR-IOV System Page Size', 2),
    () => script().write('SR-IOV System Page Size', 2).enable(),
  ],
  [
    'vf-after-disable',
    () => script().enable().disable().after(10).useVf(0),
    () => script().enable().disable().after(10).read('Vendor ID', 0xffff, 'vf0'),
  ],
  [
    'flr-with-vfs',
    () => script().enable().reset('pf', 'function').after(200).useVf(0),
    () => script().enable().reset('pf', 'function').after(200).enable().useVf(0),
  ],
  [
    'vectors-never-enabled',
    () => script().unmaskVector('pf').after(1500).read('Command', 0),
    () =>
      script()
        .unmaskVector('pf')
        .write('MSI-X Message Control', 0x8000)
        .after(1500)
        .read('Command', 0),
  ],
  [
    'absent-function',
    () => script('glue').enable(2).useVf(2),
    () =>
      script('glue')
        .enable(2)
        .read('Vendor ID', 0xffff, 'vf2')
        .read('Interrupt Pin', 0, 'vf2')
        .useVf(1),
  ],
  [
    'enable-failed',
    () =>
      script()
        .write('SR-IOV NumVFs', 1)
        .write('SR-IOV Control', 9)
        .note('effect', { type: 'endEnable', outcome: 'failed', text: 'no memory' }),
    () => script().enable().note('effect', { type: 'endEnable', outcome: 'enabled', text: '' }),
  ],
];

describe.each(CASES)('%s', (rule, broken, kept) => {
  it('is found where a driver breaks it, and nothing else is', () => {
    expect(broken().findings()).toEqual([rule]);
  });

  it('is not found where a driver keeps it', () => {
    expect(kept().findings()).toEqual([]);
  });
});

describe('vectors that were armed and never enabled', () => {
  const armed = () => script().unmaskVector('pf').after(1500);
  const session = (guest: GuestScript, what: string, role: string) =>
    guest.note('session', { what, role }, 'pf');

  it('are found when their VMM goes, and when the function is reset', () => {
    expect(session(armed(), 'gone', 'device').findings()).toEqual(['vectors-never-enabled']);
    expect(armed().reset('pf', 'device').findings()).toEqual(['vectors-never-enabled']);
  });

  it('are not forgotten where somebody looked on', () => {
    const watched = session(
      session(script().unmaskVector('pf'), 'agreed', 'observer'),
      'gone',
      'observer',
    );
    expect(watched.after(1500).read('Command', 0).findings()).toEqual(['vectors-never-enabled']);
  });
});

it('every rule has a driver that breaks it', () => {
  expect(CASES.map(([rule]) => rule).toSorted()).toEqual(RULES.map(({ id }) => id).toSorted());
});

it('a driver that has waited is not to blame for VFs that take longer', () => {
  const late = script()
    .write('SR-IOV NumVFs', 1)
    .write('SR-IOV Control', 9)
    .phase('disabled', 'creating')
    .after(101)
    .useVf(0);
  expect(late.findings()).toEqual([]);
});

describe('a driver that does not wait is found in every mode', () => {
  const enabled = (guest: GuestScript): GuestScript =>
    guest.write('SR-IOV NumVFs', 1).read('SR-IOV First VF Offset', 1).write('SR-IOV Control', 9);

  it('where a VMM attaches VFs: its own looks at them are not the driver’s', () => {
    const attached = (wait: number): GuestScript =>
      enabled(script('vmm'))
        .note('hotplug', { message: 'VfPlug', direction: 'sent', vfIndex: 0 })
        .useVf(0)
        .note('hotplug', { message: 'VfPlug', direction: 'received', vfIndex: 0 })
        .after(wait)
        .useVf(0);
    expect(attached(20).findings()).toEqual(['enable-wait']);
    expect(attached(110).findings()).toEqual([]);
  });

  it('where a busy host may have carried its write late', () => {
    const late = (heardBefore: number, wait: number): GuestScript =>
      script()
        .after(500)
        .write('SR-IOV NumVFs', 1)
        .read('SR-IOV Control', 0)
        .after(heardBefore)
        .write('SR-IOV Control', 9)
        .after(wait)
        .useVf(0);
    expect(late(400, 1).findings()).toEqual(['enable-wait']);
    expect(late(400, 30).findings()).toEqual([]);
    expect(late(30, 30).findings()).toEqual(['enable-wait']);
    expect(late(30, 60).findings()).toEqual([]);
  });

  it('where the guest stands still meanwhile: that is no waiting', () => {
    const paused = (wait: number): GuestScript =>
      enabled(script('glue')).glue('stop').after(500).useVf(0).glue('cont').after(wait).useVf(0);
    expect(paused(20).findings()).toEqual(['enable-wait']);
    expect(paused(110).findings()).toEqual([]);
  });

  it('where it looks before the glue has the guest stopped, and has answered VfPlug', () => {
    const looking = enabled(script('none').note('session', { what: 'agreed', role: 'glue' }))
      .note('hotplug', { message: 'VfPlug', direction: 'sent', vfIndex: 0 })
      .after(3)
      .useVf(0)
      .glue('stop')
      .after(20)
      .note('hotplug', { message: 'VfPlug', direction: 'received', vfIndex: 0 })
      .glue('cont');
    expect(looking.findings()).toEqual(['enable-wait']);
  });

  it('where the answer to its write was held back: its clock ran on meanwhile', () => {
    const held = (wait: number): GuestScript =>
      enabled(script()).after(40).answered(40).after(wait).useVf(0);
    expect(held(20).findings()).toEqual(['enable-wait']);
    expect(held(61).findings()).toEqual([]);
  });
});

describe('what cannot be judged is said', () => {
  const GAP: TraceEvent = { kind: 'gap', time: 1, function: '', isFailure: false, lost: 5 };
  const said = (guest: GuestScript): string => explanationLines(explain(guest.events)).join('\n');
  /** VFs that are up so many milliseconds after VF Enable. */
  const upAfter = (milliseconds: number): GuestScript =>
    script('vmm')
      .note('step', { event: { type: 'vfEnableSet' }, before: 'disabled', after: 'creating' })
      .after(milliseconds)
      .phase('plugging', 'enabled');

  it.each([
    ['enable-wait', script('glue')],
    ['disable-wait', script('glue')],
    ['vf-not-ready', script('glue')],
  ])('%s, where the glue’s pauses are missing', (rule, guest) => {
    expect(said(guest)).toContain(`not judged: ${rule}: the glue’s pauses are not in the trace`);
  });

  it('vectors-never-enabled, where the VMM has the vector table', () => {
    const rule = 'not judged: vectors-never-enabled: the VMM keeps the MSI-X tables itself';
    expect(said(script('glue'))).toContain(rule);
    expect(said(script('vmm'))).not.toContain(rule);
    expect(said(script('vmm').bindVectors('pf'))).toContain(rule);
  });

  it.each(['vf-not-ready', 'vf-after-disable', 'absent-function'])(
    '%s, where a VMM answers for VFs that are not there',
    (rule) => {
      const line = `not judged everywhere: ${rule}: a VMM that attaches VFs by itself`;
      expect(said(script('vmm'))).toContain(line);
      expect(said(script('glue').glue('cont'))).not.toContain(line);
    },
  );

  it('enable-wait, where a VMM answers for VFs for longer than a driver waits; what is found counts', () => {
    const line = 'not judged everywhere: enable-wait: VFs were up 90.0 ms after VF Enable';
    expect(said(upAfter(90))).toContain(line);
    expect(said(upAfter(20))).not.toContain('enable-wait');
    const hasty = upAfter(90)
      .write('SR-IOV NumVFs', 1)
      .write('SR-IOV Control', 9)
      .after(5)
      .useVf(0);
    expect(hasty.findings()).toEqual(['enable-wait']);
    expect(said(hasty)).toContain(line);
  });

  it('what happened where events are missing', () => {
    const guest = script().useVf(0);
    guest.events.push(GAP);
    expect(said(guest)).not.toContain('not seen: ');
    expect(said(guest.useVf(0))).toContain('not seen: what happened where events are missing');
    expect(said(guest)).toContain('not judged: disable-wait: events are missing');
  });

  it.each([
    ['a disable', script().enable().disable().after(1500), (guest: GuestScript) => guest.useVf(0)],
    [
      'an FLR of the PF',
      script().enable().reset('pf', 'function').after(200),
      (guest: GuestScript) => guest.useVf(0),
    ],
    [
      'MSI-X',
      script().unmaskVector('pf').after(1500),
      (guest: GuestScript) => guest.read('Command', 0),
    ],
  ])('nothing that events which are missing may have ended: %s', (_what, before, after) => {
    before.events.push(GAP);
    expect(after(before).findings()).toEqual([]);
  });

  it('what may have been mapped before the recording', () => {
    const guest = script();
    const line =
      'not seen, where it was mapped before the recording begins: pf region 0, VFs region 0';
    expect(said(guest)).not.toContain(line);
    guest.events.unshift(GAP);
    expect(said(guest)).toContain(line);
    const trapped = { ...DESCRIPTION.pf, mappable: [] };
    const description = { ...DESCRIPTION, pf: trapped, vf: trapped };
    expect(explanationLines(explain(guest.events, description)).join()).not.toContain('mapped');
  });

  it('what was mapped, in order', () => {
    const guest = script();
    for (const name of ['vf10', 'vf2', 'pf']) {
      guest.note('mapped', { region: 0 }, name);
    }
    expect(said(guest)).toContain(
      'not seen, because it was mapped: pf region 0, vf2 region 0, vf10 region 0; --trap shows it',
    );
  });

  it('what happened before the recording', () => {
    const guest = script();
    guest.events.unshift(GAP);
    expect(said(guest)).toContain('not seen: what happened before the recording begins');
  });

  it('in a recording whose beginning is missing, a driver that keeps the rules is clean', () => {
    const guest = script().write('SR-IOV NumVFs', 3).useVf(0);
    guest.events.unshift({ kind: 'gap', time: 0, function: '', isFailure: false, lost: undefined });
    expect(guest.findings()).toEqual([]);
  });
});

it('a PF that does not answer while it is reset has not enabled VFs', () => {
  const guest = script().reset('pf', 'function').read('SR-IOV Control', 0xffff).after(100);
  expect(guest.write('SR-IOV NumVFs', 2).findings()).toEqual([]);
});

it('a VMM that resets a VF and looks at it is no driver that does not wait', () => {
  expect(script().enable().reset('vf0', 'device').after(1).useVf(0).findings()).toEqual([]);
});

describe('QEMU, which looks at its slots and writes to them when it resets them, is no driver', () => {
  it.each([0, 400])('also on a host that takes %i ms for each access', (milliseconds) => {
    const restart = script('glue').enable(2).disable().after(1500);
    restart.qemuReset('vf3', milliseconds).qemuReset('vf0', milliseconds, { wasAsleep: true });
    expect(restart.qemuReset('pf', milliseconds).findings()).toEqual([]);
  });

  it('and a driver that looks at one right before and after is found', () => {
    const before = script('glue').enable(2).useVf(3).qemuReset('vf3', 0);
    expect(before.findings()).toEqual(['absent-function']);
    const after = script('glue').enable(2).qemuReset('vf3', 0).write('BAR 0', 0, 'vf3');
    expect(after.findings()).toEqual(['absent-function']);
    const unlike = script('glue').enable(2).reset('vf3', 'device').write('BAR 1', 0, 'vf3');
    expect(unlike.findings()).toEqual(['absent-function']);
  });
});

describe('a driver that breaks a rule again and again', () => {
  const again = () => {
    const guest = script().enable();
    for (let i = 0; i < 250; i++) {
      guest.write('SR-IOV NumVFs', 3);
    }
    return guest;
  };

  it('is told so many times, and how many more there are', () => {
    const { findings, more } = explain(again().events);
    expect(findings).toHaveLength(100);
    expect(more).toEqual([{ rule: 'numvfs-while-enabled', count: 150 }]);
  });

  it('is shown its last', () => {
    const guest = again();
    expect(seen(guest.events).last?.time).toBe(guest.events.at(-1)!.time);
  });
});

it('of a recording that is being made, what a glue may still explain is not judged yet', () => {
  const guest = script('glue').write('SR-IOV NumVFs', 1).write('SR-IOV Control', 9).useVf(0);
  const judgement = seen(guest.glue('cont').events);
  judgement.until(1e9);
  expect(judgement.last).toBeUndefined();
  judgement.until(3e9);
  expect(judgement.last?.rule).toBe('enable-wait');
});

it('Linux’s own sequence is clean: probe, enable, disable, enable, FLR with VFs on', () => {
  const lines = readFileSync(
    new URL('../../fixtures/linux-6.12-sriov-accesses.txt', import.meta.url),
    'utf8',
  )
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
  const guest = script();
  let wasEnabled = false;
  for (const line of lines) {
    const [kind, key, text] = line.split(' ');
    if (kind === 'reset') {
      guest.reset('pf', 'function').after(100);
      wasEnabled = false;
      continue;
    }
    const name = `SR-IOV ${titleOf(key!)}`;
    const value = Number(text);
    if (kind === 'read') {
      guest.read(name, value);
      continue;
    }
    guest.write(name, value);
    const isEnabled: boolean = key === 'control' ? (value & 1) === 1 : wasEnabled;
    // pci_iov.c: msleep(100) after VF Enable is set, ssleep(1) after it is cleared.
    guest.after(isEnabled === wasEnabled ? 0 : isEnabled ? 100 : 1000);
    wasEnabled = isEnabled;
  }
  const description = { ...DESCRIPTION, totalVfs: 8 };
  expect(explain(guest.events, description).findings).toEqual([]);
});

it('a finding is told with its times and the standard’s rule', () => {
  const guest = script().read('SR-IOV NumVFs', 1).write('SR-IOV Control', 9).after(20).useVf(0);
  const [finding] = explain(guest.events).findings;
  expect(findingLine(finding!)).toBe(
    '   0.020200 (since 0.000100) VF Enable without the 100 ms wait: VF 0 was accessed 20.1 ms of guest time after VF Enable\n' +
      '            after setting VF Enable, software waits 100 ms before it sends a request to a VF ("SR-IOV Control, VF Enable")',
  );
});
