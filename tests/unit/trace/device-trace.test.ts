// What becomes of events: gaps are marked, so that nobody takes silence for nothing.

import { expect, it } from 'vitest';
import { DeviceTrace } from '../../../backend/trace/device-trace.ts';
import { Naming } from '../../../vmm-glue/trace/reading/naming.ts';
import { TraceFile } from '../../../vmm-glue/trace/reading/trace-file.ts';
import { DESCRIPTION, MemoryTrace } from './ring.ts';

function recorded(happens: (trace: DeviceTrace) => void, isFromStart = true): string[] {
  const memory = new MemoryTrace();
  const trace = new DeviceTrace(memory.recorder, isFromStart, () => {});
  happens(trace);
  trace.end();
  const file = new TraceFile(memory.save());
  const naming = new Naming(DESCRIPTION);
  const lines = [...file.events()].flatMap((event) => naming.name(event));
  file.close();
  return lines.map(({ what, text }) => `${what}: ${text}`);
}

const comes = { role: 'glue' };

it('a glue that is there before the first enable leaves no gap; one that goes does', () => {
  expect(
    recorded((trace) => {
      trace.step({ type: 'vfEnableCleared' }, 'disabled', 'disabled');
      trace.session('pf', 'agreed', comes);
      trace.step({ type: 'vfEnableSet' }, 'disabled', 'creating');
      trace.session('pf', 'gone', comes);
    }).filter((line) => line.startsWith('glue')),
  ).toEqual([
    'glue: gap: the glue has gone: what is done in the VMM’s monitor from here on is not seen',
  ]);
});

it('a glue that comes after an enable leaves a gap before it', () => {
  expect(
    recorded((trace) => {
      trace.step({ type: 'vfEnableSet' }, 'disabled', 'creating');
      trace.session('pf', 'agreed', comes);
    }).at(-2),
  ).toBe('glue: gap: a glue has come: what was done in the VMM’s monitor before it is not seen');
});

it('what a glue had no room for leaves a gap with the count', () => {
  const lines = recorded((trace) =>
    trace.glue([{ at: 1, what: 'stop', text: 'stop', took: 1 }], 7),
  );
  expect(lines[1]).toMatch(/^glue: gap: .*, 7 commands$/);
  expect(lines[2]).toMatch(/^glue: stop answered after 1.000 ms$/);
});

it('a recording that starts while the backend runs says that something came before', () => {
  expect(recorded(() => {}, false)).toEqual([
    'gap: events are missing before this one',
    'trace: started',
    'trace: ended',
  ]);
});

it('of a client that is answered everything is in the file at once', () => {
  const memory = new MemoryTrace();
  const trace = new DeviceTrace(memory.recorder, true, () => {});
  trace.access('pf', true, 7, 4, Uint8Array.of(6, 0));
  const before = memory.bytes.slice();
  trace.answering();
  expect(memory.bytes).not.toEqual(before);
});

it.each([
  [0x0004, 'DEVICE_GET_INFO'],
  [0x8011, 'TraceStart'],
  [0x8999, 'command 0x8999'],
])('a message that has no kind of its own has its name: %i', (command, name) => {
  const [, line] = recorded((trace) => trace.answered('pf', command, 0.5, 0, false));
  expect(line).toBe(`message: ${name} answered after 0.500 ms`);
});
