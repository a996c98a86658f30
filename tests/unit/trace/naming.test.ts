// Names for what devices have in their BARs: the tables come from the kinds, through the description in the trace.

import { describe, expect, it } from 'vitest';
import { trapped } from '../../../backend/commands/trap.ts';
import { describeDevice } from '../../../backend/devices/kit/describe.ts';
import { declareNvme } from '../../../backend/devices/nvme/device.ts';
import { describedForTrace } from '../../../backend/trace/tracing.ts';
import { Naming } from '../../../vmm-glue/trace/reading/naming.ts';
import { describeLoopback } from '../../fakes/loopback.ts';

const nvme = describeDevice(
  declareNvme({
    totalVfs: 2,
    vfs: 'online',
    serialNumber: 'S1',
    uuid: new Uint8Array(16),
    namespaces: [],
  }),
);
const loopback = describeLoopback({ totalVfs: 2, vfBarSize: 16384, enableMilliseconds: 0 });

/** As a reader on another machine has it: the description went through JSON. */
function naming(description: typeof nvme): Naming {
  const traced = describedForTrace(description, description.pf.config, true);
  return new Naming(JSON.parse(JSON.stringify(traced)));
}

function named(
  names: Naming,
  functionName: string,
  offset: number,
  value: number,
  isWrite = true,
  region = 0,
): string[] {
  const data = new Uint8Array(4);
  new DataView(data.buffer).setUint32(0, value, true);
  const event = {
    kind: 'access',
    time: 0,
    function: functionName,
    isFailure: false,
    isWrite,
    region,
    offset,
    length: 4,
    data,
    took: 0,
  } as const;
  return names.name(event).map(({ what, text }) => `${what}: ${text}`);
}

it('NVMe registers have the standard’s names, with fields before and after', () => {
  const names = naming(nvme);
  expect(named(names, 'pf', 0x00, 0x0f0103ff, false)).toEqual([
    'NVMe CAP Low: 0x0f0103ff  maximumQueueEntries 1023, contiguousQueuesRequired 1, timeout 15',
  ]);
  named(names, 'pf', 0x14, 0, false);
  expect(named(names, 'pf', 0x14, 0x0046_0001)).toEqual([
    'NVMe CC: 0x00460001  enable 0→1, submissionEntrySize 0→6, completionEntrySize 0→4',
  ]);
  expect(named(names, 'vf1', 0x1c, 1, false)).toEqual(['NVMe CSTS: 0x00000001  ready 1']);
  expect(
    [0x08, 0x0c, 0x10, 0x24, 0x28, 0x30].map((at) => named(names, 'pf', at, 0)[0]!.split(':')[0]),
  ).toEqual(['NVMe VS', 'NVMe INTMS', 'NVMe INTMC', 'NVMe AQA', 'NVMe ASQ Low', 'NVMe ACQ Low']);
});

it('a doorbell has its queue', () => {
  const names = naming(nvme);
  expect(named(names, 'pf', 0x1000, 1)).toEqual(['NVMe SQ 0 Tail Doorbell: 0x00000001  tail ?→1']);
  expect(named(names, 'vf0', 0x100c, 7)).toEqual(['NVMe CQ 1 Head Doorbell: 0x00000007  head ?→7']);
  expect(named(names, 'pf', 0x1000 + 8 * 16, 3)[0]).toMatch(/^NVMe SQ 16 Tail Doorbell:/);
  expect(named(names, 'vf0', 0x1000 + 8 * 16, 3)[0]).toMatch(/^BAR 0 \+0x1080:|^NVMe \+/);
});

it('the loopback’s registers and its vectors have names', () => {
  const names = naming(loopback);
  expect(named(names, 'vf0', 0x10, 2)[0]).toMatch(/^Doorbell:/);
  expect(named(names, 'pf', 0x102c, 0)[0]).toMatch(/^MSI-X Vector 2 Vector Control:/);
});

it('what --trap takes away is nothing that a trace calls mapped', () => {
  const mappable = (description: typeof nvme, kind: 'pf' | 'vf') =>
    describedForTrace(description, description.pf.config, true)[kind].mappable;
  expect(mappable(loopback, 'vf')).toEqual([0]);
  expect(mappable(trapped(loopback, ['vfs']), 'vf')).toEqual([]);
  expect(mappable(trapped(loopback, ['vfs']), 'pf')).toEqual([0]);
  expect(mappable(trapped(loopback, ['bar0']), 'pf')).toEqual([]);
});

it('what a glue tells late has the time when it was', () => {
  const told = (names: Naming, at: unknown): string =>
    names.name({
      kind: 'glue',
      time: 9e9,
      function: '',
      isFailure: false,
      detail: { what: 'stop', text: 'stop', at, took: 2 },
    })[0]!.text;
  const { config } = loopback.pf;
  const names = new Naming(describedForTrace(loopback, config, true), 5_000_000_000);
  expect(told(names, 8500.25)).toBe('stop answered after 2.000 ms, at 3.500250');
  expect(told(names, 'nonsense')).toBe('stop answered after 2.000 ms');
  expect(told(naming(loopback), 8500.25)).toBe('stop answered after 2.000 ms');
});

describe('a VF that comes back is another one', () => {
  const common = { time: 0, isFailure: false } as const;
  const enable = (names: Naming, offset: number, value: readonly number[]): string =>
    names
      .name({
        ...common,
        kind: 'access',
        function: 'vf0',
        isWrite: true,
        region: 7,
        offset,
        length: 2,
        data: Uint8Array.from(value),
        took: 0,
      })
      .map(({ what, text }) => `${what}: ${text}`)
      .join();
  const command = (names: Naming) => enable(names, 0x04, [0x04, 0]);
  const msix = (names: Naming) => enable(names, 0xb0 + 2, [0, 0x80]);

  it('in a slot, which keeps Command', () => {
    const names = naming(loopback);
    expect([command(names), msix(names)]).toEqual([
      'Command: 0x0004  busMasterEnable 0→1',
      'MSI-X Message Control: 0x8000  enable 0→1',
    ]);
    expect(msix(names)).toBe('MSI-X Message Control: 0x8000');
    const detail = { event: {}, before: 'enabled', after: 'unplugging' };
    names.name({ ...common, kind: 'step', function: '', detail });
    expect([command(names), msix(names)]).toEqual([
      'Command: 0x0004',
      'MSI-X Message Control: 0x8000  enable 0→1',
    ]);
  });

  it('attached by its VMM, which keeps nothing', () => {
    const names = naming(loopback);
    command(names);
    const detail = { what: 'gone', role: 'device' };
    names.name({ ...common, kind: 'session', function: 'vf0', detail });
    expect(command(names)).toBe('Command: 0x0004  busMasterEnable 0→1');
  });
});

it('a carrier has the header of any function, and no register of its VF', () => {
  const names = naming(nvme);
  const config = (name: string, offset: number) => named(names, name, offset, 0, true, 7)[0];
  expect(config('carrier1', 0x10)).toBe('BAR 0: 0x00000000');
  expect(config('carrier1', 0x40)).toMatch(/^Config \+0x40:/);
  expect(config('vf1', 0x40)).not.toMatch(/^Config \+/);
  expect(named(names, 'carrier1', 0x14, 1)).toEqual(['BAR 0 +0x14: 0x00000001']);
});
