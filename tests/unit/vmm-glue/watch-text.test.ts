// A frame of `status --watch`.

import { expect, it } from 'vitest';
import { frame } from '../../../vmm-glue/commands/watch-text.ts';
import { COUNTS, STATUS } from './device-status.ts';

const SCREEN = { columns: 80, rows: 24 };

it('shows PF and VFs with their rates, in 80 columns', () => {
  const before = { ...STATUS, pf: { ...COUNTS, messages: 1_234_567_880 } };
  const lines = frame(
    { at: 2000, status: STATUS, driver: {} },
    { at: 0, status: before, driver: {} },
    SCREEN,
  );
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
  expect(frame({ at: 1, status: STATUS, driver: {} }, undefined, SCREEN)[4]).not.toContain('.');
  const looks = [
    { at: 9, status: restarted, driver: {} },
    { at: 1, status: STATUS, driver: {} },
  ] as const;
  expect(frame(...looks, SCREEN)[4]).not.toContain('.');
});

it('fits the screen, and says what it leaves out', () => {
  const lines = frame({ at: 1, status: STATUS, driver: {} }, undefined, { columns: 12, rows: 3 });
  expect(lines).toEqual(['0000:01:00.0', 'hot-plug by ', '… and 5 more']);
});

it('what somebody else has written is shown, not obeyed', () => {
  const quarantine = [{ vfIndex: 0, holder: '\u001b[2Jpid' }];
  const lines = frame({ at: 1, status: { ...STATUS, quarantine }, driver: {} }, undefined, SCREEN);
  expect(lines[2]).toBe('VF 0 is held by \\u001b[2Jpid');
});

const LINES = Array.from({ length: 12 }, (_, i) => `   0.00000${i} pf   R Vendor ID  0x1234`);

it('shows what the driver did last, in a third of the screen at most', () => {
  const look = { at: 1, status: STATUS, driver: { lines: LINES } };
  const lines = frame(look, undefined, SCREEN);
  expect(lines.slice(-8)).toEqual(['', ...LINES.slice(-7)]);
  expect(frame(look, undefined, { columns: 80, rows: 11 })).not.toContain(LINES.at(-1));
  expect(frame(look, undefined, { columns: 80, rows: Number.POSITIVE_INFINITY })).toEqual([
    ...lines.slice(0, -8),
    '',
    ...LINES,
  ]);
});

it('where there are many VFs what the driver did last has its place all the same', () => {
  const vf = STATUS.vfs[0]!;
  const vfs = Array.from({ length: 255 }, (_, index) => ({ ...vf, index }));
  const look = { at: 1, status: { ...STATUS, vfs }, driver: { lines: LINES } };
  const lines = frame(look, undefined, SCREEN);
  expect(lines).toHaveLength(SCREEN.rows);
  expect(lines.at(-1)).toBe(LINES.at(-1));
  expect(lines.at(-9)).toBe('… and 245 more lines');
});

it('shows the last finding in 80 columns', () => {
  const finding = {
    rule: 'enable-wait',
    time: 20e6,
    since: 0,
    text: 'VF 0 was accessed 20.1 ms of guest time after VF Enable',
  };
  const lines = frame({ at: 1, status: STATUS, driver: { finding } }, undefined, SCREEN);
  expect(lines.slice(2, 4)).toEqual([
    'last finding, at 0.020000: VF Enable without the 100 ms wait',
    '  VF 0 was accessed 20.1 ms of guest time after VF Enable',
  ]);
});
