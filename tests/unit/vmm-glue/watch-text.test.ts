// A frame of `status --watch`.

import { expect, it } from 'vitest';
import type { DeviceStatus } from '../../../protocol/hotplug/status.ts';
import { frame } from '../../../vmm-glue/commands/watch-text.ts';

const COUNTS = { attached: true, messages: 20, interrupts: 1, dmaWindows: 2, failedMaps: [] };
const STATUS: DeviceStatus = {
  version: 1,
  device: '0000:01:00.0',
  phase: 'enabled',
  failure: null,
  numVfs: 2,
  totalVfs: 8,
  vfEnable: true,
  generation: 3,
  hotplug: 'glue',
  pf: { ...COUNTS, messages: 1_234_567_890 },
  clients: [],
  vfs: [
    { ...COUNTS, index: 0, generation: 3, state: 'up', holder: 'guest' },
    { ...COUNTS, index: 1, generation: 3, state: 'coming-up', holder: null },
    { ...COUNTS, index: 2, generation: 0, state: 'absent', holder: null, attached: false },
  ],
  quarantine: [],
};
const SCREEN = { columns: 80, rows: 24 };

it('shows PF and VFs with their rates, in 80 columns', () => {
  const before = { ...STATUS, pf: { ...COUNTS, messages: 1_234_567_880 } };
  const lines = frame({ at: 2000, status: STATUS }, { at: 0, status: before }, SCREEN);
  expect(lines).toEqual([
    '0000:01:00.0  SR-IOV enabled  2 of 8 VFs',
    'hot-plug by glue, generation 3',
    '',
    '       state          messages    a second   interrupts  DMA windows',
    'pf     attached     1234567890         5.0            1            2',
    'vf0    up                   20         0.0            1            2',
    'vf1    coming-up            20         0.0            1            2',
  ]);
  expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(80);
});

it('has no rate at first, nor where another client counts from the beginning', () => {
  const restarted = { ...STATUS, pf: { ...COUNTS, messages: 3 } };
  expect(frame({ at: 1, status: STATUS }, undefined, SCREEN)[4]).not.toContain('.');
  const looks = [
    { at: 9, status: restarted },
    { at: 1, status: STATUS },
  ] as const;
  expect(frame(...looks, SCREEN)[4]).not.toContain('.');
});

it('fits the screen, and says what it leaves out', () => {
  const lines = frame({ at: 1, status: STATUS }, undefined, { columns: 12, rows: 3 });
  expect(lines).toEqual(['0000:01:00.0', 'hot-plug by ', '… and 5 more']);
});

it('what somebody else has written is shown, not obeyed', () => {
  const quarantine = [{ vfIndex: 0, holder: '\u001b[2Jpid' }];
  const lines = frame({ at: 1, status: { ...STATUS, quarantine } }, undefined, SCREEN);
  expect(lines[2]).toBe('VF 0 is held by \\u001b[2Jpid');
});
