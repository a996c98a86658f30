import { readFileSync } from 'node:fs';
import { beforeEach, describe, expect, it } from 'vitest';
import { HostError, type HostLink } from '../../../backend/device/physical-device.ts';
import { NVME_FAULTS } from '../../../backend/devices/nvme/fault-language.ts';
import { ArmedFaults, type FaultyFunction } from '../../../backend/faults/armed-faults.ts';
import { faultyHost } from '../../../backend/faults/faulty-host.ts';
import { languageWith } from '../../../backend/faults/spec.ts';
import { logInto } from '../../../protocol/log.ts';
import { describeLoopback } from '../../fakes/loopback.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';

const PF = { function: 'pf' } as const;
let clock: ManualClock;
let lines: string[];
let spurious: string[];
let heard: Set<string>;
let withheldChanges: number;

beforeEach(() => {
  clock = new ManualClock();
  lines = [];
  spurious = [];
  heard = new Set(['pf 0', 'vf0 2']);
  withheldChanges = 0;
});

function functionNamed(name: string): FaultyFunction {
  return {
    name,
    hears: (vector) => heard.has(`${name} ${vector}`),
    raiseSpurious: (vector) => void spurious.push(`${name} ${vector}`),
    withheldChanged: () => void withheldChanges++,
  };
}

function faultsOf(kind = 'loopback'): ArmedFaults {
  const description = describeLoopback({ totalVfs: 3, vfBarSize: 16384, enableMilliseconds: 0 });
  return new ArmedFaults({
    device: { kind, description, otherKinds: ['nvme', kind] },
    clock,
    log: logInto((level, message) => lines.push(`${level}: ${message}`)),
    functions: () => ['pf', 'vf0'].map(functionNamed),
  });
}

describe('arming', () => {
  it('is told with numbers that are never used again, and how often each fired', () => {
    const faults = faultsOf();
    faults.add('flr:hang');
    faults.add('dma:error');
    faults.clear(1);
    faults.add('aer:fatal');
    faults.fires('dma:error', PF);
    expect(faults.status).toEqual([
      { id: 2, rule: 'dma:error', fired: 1 },
      { id: 3, rule: 'aer:fatal', fired: 0 },
    ]);
    expect([faults.clear(1), faults.clear(), faults.status.length]).toEqual([false, true, 0]);
    expect(lines).toContain('warn: fault 2 is armed: dma:error');
  });

  it.each([
    ['nvme:drop', 'loopback', 'nvme:drop goes with --device=nvme', 'nvme:drop'],
    ['vf=3:absent', 'loopback', 'there is no VF 3', '3:absent'],
    ['flr:hang@function=vf7', 'loopback', 'there is no VF 7', 'vf7'],
    ['msix:lost@vector=8', 'loopback', 'there is no vector 8', '8'],
    [
      'msix:spurious@times=2,vector=4,function=vf1',
      'loopback',
      'there is no vector 4',
      '4,function=vf1',
    ],
    ['dma:error', 'vfio', expect.stringContaining('goes through the IOMMU'), 'dma:error'],
    [
      'surprise-removal',
      'vfio',
      expect.stringContaining('its memory is mapped'),
      'surprise-removal',
    ],
    ['msix:lost@every=2', 'vfio', expect.stringContaining('cannot be counted'), '2'],
    ['msix:lost@times=5,vector=0', 'vfio', expect.stringContaining('be counted'), '5,vector=0'],
    ['flr:bad', 'loopback', 'there is no fault "bad"', 'bad'],
  ])('of %s for %s is refused in one line, with the place', (rule, kind, what, fromThere) => {
    const faults = faultsOf(kind);
    expect(faults.add(rule)).toMatchObject({ what, position: rule.length - fromThere.length });
    expect(faults.status).toEqual([]);
  });

  it.each(['vf-enable:fail', 'flr:hang', 'config-read:all-ones', 'msix:lost', 'msix:spurious'])(
    'of %s is for a physical function, too',
    (rule) => {
      expect(faultsOf('vfio').add(rule)).toBeUndefined();
    },
  );

  it('has a bound', () => {
    const faults = faultsOf();
    const refusals = Array.from({ length: 65 }, () => faults.add('dma:error'));
    expect(refusals.filter((each) => each !== undefined)).toHaveLength(1);
  });
});

describe('interrupts', () => {
  it('that nobody raised come at intervals, where they would be heard', () => {
    const faults = faultsOf();
    faults.add('msix:spurious=10ms@vector=2,times=2');
    faults.add('msix:spurious');
    clock.elapse(1000);
    expect(spurious).toEqual(['vf0 2', 'vf0 2', 'pf 0']);
    faults.clear();
    clock.elapse(5000);
    expect([spurious.length, clock.pending]).toEqual([3, 0]);
  });

  it('of hardware are withheld, and given back', () => {
    const faults = faultsOf('vfio');
    faults.add('msix:lost@vector=3,function=vf0');
    const asked = [
      { function: 'vf0', vector: 3 },
      { function: 'vf0', vector: 2 },
      { function: 'pf', vector: 3 },
    ];
    expect(asked.map((occasion) => faults.withholds(occasion))).toEqual([true, false, false]);
    faults.clear();
    expect([faults.withholds(asked[0]!), withheldChanges]).toEqual([false, 4]);
  });

  it('of a device in RAM are never withheld: they are lost one by one', () => {
    const faults = faultsOf();
    faults.add('msix:lost');
    expect([faults.withholds({ ...PF, vector: 0 }), withheldChanges]).toEqual([false, 0]);
  });
});

describe('a function level reset', () => {
  it('hangs until the fault is cleared, or the VMM resets the function', () => {
    const faults = faultsOf();
    const ended: string[] = [];
    faults.add('flr:hang');
    for (const name of ['pf', 'vf0']) {
      faults.delayReset({ function: name }, () => ended.push(name));
    }
    expect(ended).toEqual([]);
    faults.deviceReset('vf0');
    expect(ended).toEqual(['vf0']);
    faults.clear();
    expect(ended).toEqual(['vf0', 'pf']);
  });

  it('takes its time', () => {
    const faults = faultsOf();
    let hasEnded = false;
    faults.add('flr:delay=2s');
    faults.delayReset(PF, () => {
      hasEnded = true;
    });
    clock.elapse(1999);
    expect(hasEnded).toBe(false);
    clock.elapse(1);
    expect(hasEnded).toBe(true);
  });

  it('that takes its time is over when the VMM resets the function, or the fault is cleared, and once', () => {
    const faults = faultsOf();
    const ended: string[] = [];
    faults.add('flr:delay=2s');
    for (const name of ['pf', 'vf0']) {
      faults.delayReset({ function: name }, () => ended.push(name));
    }
    faults.deviceReset('vf0');
    expect(ended).toEqual(['vf0']);
    faults.clear();
    expect(ended).toEqual(['vf0', 'pf']);
    clock.elapse(2000);
    expect(ended).toEqual(['vf0', 'pf']);
  });
});

describe('making VFs', () => {
  function answersOf(faults: ArmedFaults): { asked: string[]; request(): void; answers: string[] } {
    const asked: string[] = [];
    const answers: string[] = [];
    const real: HostLink = {
      request: (name, _args, done) => {
        asked.push(name);
        done(undefined, undefined);
      },
    };
    const host = faultyHost(real, faults, clock);
    return {
      asked,
      answers,
      request: () =>
        host.request('createVfs', [1], (error) =>
          answers.push(error instanceof HostError ? error.message : 'made'),
        ),
    };
  }

  it('fails without a word to the host', () => {
    const faults = faultsOf();
    faults.add('vf-enable:fail@times=1');
    const { asked, answers, request } = answersOf(faults);
    request();
    clock.elapse(0);
    request();
    expect(answers).toEqual([
      'write sriov_numvfs: the fault vf-enable:fail@times=1 was asked for; clear the fault',
      'made',
    ]);
    expect(asked).toEqual(['createVfs']);
  });

  it('takes its time', () => {
    const faults = faultsOf();
    faults.add('vf-enable:delay=3s');
    const { answers, request } = answersOf(faults);
    request();
    clock.elapse(2999);
    expect(answers).toEqual([]);
    clock.elapse(1);
    expect(answers).toEqual(['made']);
  });
});

it('every fault is in the table that people read', () => {
  const table = readFileSync('backend/faults/README.md', 'utf8');
  for (const name of Object.keys(languageWith(NVME_FAULTS).faults)) {
    const written = name === 'vf:absent' ? 'vf=N:absent' : name;
    expect(table).toContain(`| \`${written}`);
  }
});
