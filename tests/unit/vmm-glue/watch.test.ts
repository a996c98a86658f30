// `status --watch` on a terminal whose size changes, and on an output that takes no more.

import { EventEmitter } from 'node:events';
import { expect, it } from 'vitest';
import type { DeviceStatus } from '../../../protocol/hotplug/status.ts';
import { type WatchOutput, watch } from '../../../vmm-glue/commands/watch.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';
import { SOON } from '../../patience.ts';
import { STATUS } from './device-status.ts';

class Terminal extends EventEmitter {
  isTTY = true;
  readonly writableNeedDrain = false;
  columns = 80;
  rows = 24;
  text = '';

  write(text: string): boolean {
    this.text += text;
    return true;
  }

  /** Of the last frame. */
  get lines(): string[] {
    return this.text.split('\u001b[H').at(-1)!.split('\u001b[K\r\n');
  }
}

const watched = (terminal: Terminal, signal: AbortSignal, status: DeviceStatus = STATUS) =>
  watch({
    output: terminal as unknown as WatchOutput,
    milliseconds: 3_600_000,
    clock: new ManualClock(),
    signal,
    ask: () => Promise.resolve({ status, driver: {} }),
  });

it('draws anew what it has when the terminal has another size, without asking', async () => {
  const terminal = new Terminal();
  const ending = new AbortController();
  const ended = watched(terminal, ending.signal);
  await expect.poll(() => terminal.lines.length, SOON).toBe(7);
  terminal.columns = 20;
  terminal.rows = 3;
  terminal.emit('resize');
  expect(terminal.lines).toHaveLength(3);
  expect(terminal.lines[0]).toBe('0000:01:00.0  SR-IOV');
  ending.abort();
  await ended;
  expect(terminal.listenerCount('resize')).toBe(0);
});

it.each([true, false])('ends when its output takes no more (a terminal: %s)', async (isTTY) => {
  const output = new Terminal();
  output.isTTY = isTTY;
  const ended = watched(output, new AbortController().signal, STATUS);
  await expect.poll(() => output.text, SOON).toContain('SR-IOV');
  output.emit('error', new Error('EPIPE'));
  await ended;
  expect(output.eventNames()).toEqual([]);
});
