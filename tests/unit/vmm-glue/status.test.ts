// The tree that `status` prints for people.

import { describe, expect, it } from 'vitest';
import type { DeviceStatus, VfStatus } from '../../../protocol/hotplug/status.ts';
import { printable } from '../../../protocol/printable.ts';
import { statusText } from '../../../vmm-glue/commands/status-text.ts';

const COUNTS = { attached: true, messages: 20, interrupts: 1, dmaWindows: 2, failedMaps: [] };
const UP: VfStatus = { ...COUNTS, index: 0, generation: 3, state: 'up', holder: 'vmm' };
const ABSENT: VfStatus = {
  index: 1,
  generation: 0,
  state: 'absent',
  holder: null,
  attached: false,
  messages: 0,
  interrupts: 0,
  dmaWindows: 0,
  failedMaps: [],
};
const ENABLED: DeviceStatus = {
  version: 1,
  device: '0000:01:00.0',
  phase: 'enabled',
  failure: null,
  numVfs: 1,
  totalVfs: 8,
  vfEnable: true,
  generation: 3,
  hotplug: 'vmm',
  pf: { ...COUNTS, messages: 122, interrupts: 0, dmaWindows: 1 },
  clients: [],
  vfs: [UP, ABSENT],
  quarantine: [],
};

function lines(status: Partial<DeviceStatus>): string[] {
  return statusText({ ...ENABLED, ...status })
    .trimEnd()
    .split('\n');
}

describe('the status as a person reads it', () => {
  it('shows the PF, whoever plugs, and the VFs that there are', () => {
    expect(lines({})).toEqual([
      '0000:01:00.0  SR-IOV enabled  1 of 8 VFs',
      '├─ PF      attached; 122 messages, 0 interrupts, 1 DMA window',
      '├─ hot-plug by vmm, generation 3',
      '└─ VF 0    up, generation 3, held by vmm; 20 messages, 1 interrupt, 2 DMA windows',
    ]);
  });

  it.each([
    [{ on: true, records: 12, failure: null }, '├─ recording: 12 events'],
    [{ on: false, records: 12, failure: 'it was cut' }, '├─ the recording ended: it was cut'],
  ])('says whether a recording is made, and why it is no more', (trace, line) => {
    expect(lines({ trace })).toContain(line);
  });

  it('says that nobody is there, and of slots that no VF was in them yet', () => {
    const slot = { ...ABSENT, attached: true };
    const idle = { phase: 'disabled', vfEnable: false, generation: 0, hotplug: null } as const;
    const pf = { ...COUNTS, attached: false, messages: 0, interrupts: 0, dmaWindows: 0 };
    expect(lines({ ...idle, pf, vfs: [slot] })).toEqual([
      '0000:01:00.0  SR-IOV disabled  0 of 8 VFs',
      '├─ PF      no VM; 0 messages, 0 interrupts, 0 DMA windows',
      '├─ hot-plug by nobody, generation 0',
      '└─ VF 1    absent; 0 messages, 0 interrupts, 0 DMA windows',
    ]);
  });

  it('shows VFs in quarantine, with who does not let go, also when no session is left', () => {
    const holder = 'process 262 (vt)';
    const held = { ...ABSENT, generation: 3, holder };
    const shown = lines({
      phase: 'quarantined',
      vfEnable: false,
      vfs: [{ ...UP, state: 'absent', holder: null, attached: false }, held],
      quarantine: [{ vfIndex: 1, holder }],
    });
    expect(shown.filter((line) => line.includes('VF '))).toEqual([
      '└─ VF 1    in quarantine, generation 3, held by process 262 (vt); 0 messages, 0 interrupts, 0 DMA windows',
    ]);
    expect(shown[0]).toBe('0000:01:00.0  SR-IOV quarantined  0 of 8 VFs');
  });

  it('says what may have a QEMU hold VFs for good', () => {
    const holder = 'pid 262 (qemu-system-x86)';
    const quarantine = [{ vfIndex: 1, holder }];
    const shown = lines({ phase: 'quarantined', vfs: [{ ...ABSENT, holder }], quarantine });
    expect(shown.at(-1)).toContain('"info mtree -f" has printed');
  });

  it('says why the last enable failed, and what guest memory the device cannot reach', () => {
    const failure = 'the host could not make 2 VFs: No space left on device';
    const failedMaps = ['guest memory 0x0+0x1000 could not be mapped: ENOMEM'];
    const pf = { ...ENABLED.pf, failedMaps };
    expect(lines({ phase: 'disabled', failure, pf, vfs: [] }).slice(3)).toEqual([
      `├─ last enable failed: ${failure}`,
      `└─ ${failedMaps[0]}`,
    ]);
    const vfs = [{ ...UP, failedMaps }];
    expect(lines({ vfs }).at(-1)).toBe(`└─ VF ${UP.index}: ${failedMaps[0]}`);
  });
});

it.each([
  ['a line end', 'a\nb', 'a\\u000ab'],
  ['an escape sequence', '\u001b[2J', '\\u001b[2J'],
  ['one of 8 bits', '\u009b2J', '\\u009b2J'],
  ['a turn of the writing', '\u202eabc', '\\u202eabc'],
  ['a tag beyond 16 bits', '\u{e0041}', '\\udb40\\udc41'],
])('%s in the words of a VMM is shown, not obeyed', (_what, text, shown) => {
  expect(printable(text)).toBe(shown);
  const status = { ...ENABLED, failure: text };
  expect(statusText(status)).toContain(`last enable failed: ${shown}\n`);
});
