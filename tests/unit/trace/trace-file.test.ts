import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { EventKind, FileHeader, TRACE_MARK } from '../../../protocol/trace/format.ts';
import { TraceFile } from '../../../vmm-glue/trace/reading/trace-file.ts';
import { DESCRIPTION, MemoryTrace } from './ring.ts';

function read(path: string) {
  const file = new TraceFile(path);
  const events = [...file.events()];
  file.close();
  return { file, events };
}

it('what was recorded comes back in order, with its times and its data', () => {
  const trace = new MemoryTrace();
  const { recorder } = trace;
  trace.time = 1.5;
  recorder.access(0, true, 7, 0x118, Uint8Array.of(0x19, 0));
  recorder.took(0.25);
  trace.time = 2;
  recorder.access(3, false, 0, 2 ** 33 + 8, Uint8Array.of(1, 2, 3, 4));
  recorder.dma(0, true, { address: 0n, size: 1n << 64n, flags: 3, fds: 1 });
  recorder.setIrqs(1, { index: 2, start: 0, count: 4, flags: 0x24, fds: 4 });
  recorder.answer(0, EventKind.reset, 12.5, 16);
  recorder.note(EventKind.step, 0xffff, { before: 'disabled', size: 5n });
  recorder.gap(7);
  const { events, file } = read(trace.save());
  expect(file.problems).toEqual([]);
  expect(file.description.device).toBe('loopback');
  expect(events).toEqual([
    {
      kind: 'access',
      time: 1_500_000,
      function: 'pf',
      isFailure: false,
      isWrite: true,
      region: 7,
      offset: 0x118,
      length: 2,
      data: Uint8Array.of(0x19, 0),
      took: 250_000,
    },
    {
      kind: 'access',
      time: 2_000_000,
      function: 'vf2',
      isFailure: false,
      isWrite: false,
      region: 0,
      offset: 2 ** 33 + 8,
      length: 4,
      data: Uint8Array.of(1, 2, 3, 4),
      took: 0,
    },
    {
      kind: 'dmaMap',
      time: 2_000_000,
      function: 'pf',
      isFailure: false,
      address: 0n,
      size: 0xffff_ffff_ffff_ffffn,
      flags: 3,
      fds: 1,
    },
    {
      kind: 'setIrqs',
      time: 2_000_000,
      function: 'vf0',
      isFailure: false,
      index: 2,
      start: 0,
      count: 4,
      flags: 0x24,
      fds: 4,
    },
    {
      kind: 'answer',
      time: 2_000_000,
      function: 'pf',
      isFailure: true,
      of: 'reset',
      waited: 12_500_000,
      errno: 16,
    },
    {
      kind: 'step',
      time: 2_000_000,
      function: '',
      isFailure: false,
      detail: { before: 'disabled', size: '0x5' },
    },
    { kind: 'gap', time: 2_000_000, function: '', isFailure: false, lost: 7 },
  ]);
});

it('a ring that went around keeps the newest, and says that the oldest are gone', () => {
  const trace = new MemoryTrace({ blocks: 3 });
  const count = 10_000;
  for (let i = 0; i < count; i++) {
    trace.time = i;
    trace.recorder.access(0, false, 7, 0, Uint8Array.of(i & 0xff, (i >> 8) & 0xff, 0, 0));
  }
  const { events, file } = read(trace.save());
  expect(file).toMatchObject({ problems: [], isWrapped: true });
  const [gap, ...accesses] = events;
  expect(gap).toMatchObject({ kind: 'gap', lost: undefined });
  const times = accesses.map(({ time }) => time / 1e6);
  expect(times.length).toBeGreaterThan(2000);
  expect(times).toEqual(times.map((_, i) => count - times.length + i));
});

it('what the ring has lost is missing right before what it has kept', () => {
  const trace = new MemoryTrace({ blocks: 3 });
  for (let i = 0; i < 10_000; i++) {
    trace.time = 5000 + i;
    trace.recorder.access(0, false, 7, 0, Uint8Array.of(0));
  }
  const [gap, first] = read(trace.save()).events;
  expect(gap).toMatchObject({ kind: 'gap', time: first!.time });
  expect(first!.time).toBeGreaterThan(5e9);
});

it('a backend that goes around the ring while it is read has damaged nothing', () => {
  const trace = new MemoryTrace({ blocks: 4 });
  const write = (count: number): void => {
    for (let i = 0; i < count; i++) {
      trace.time += 1;
      trace.recorder.access(0, false, 7, 0, Uint8Array.of(0));
    }
    trace.recorder.flush();
  };
  write(5000);
  const path = trace.save();
  const file = new TraceFile(path);
  const events = file.events();
  const before = [events.next().value!, events.next().value!];
  write(20_000);
  writeFileSync(path, trace.bytes);
  const rest = [...events, ...file.more()];
  expect(file.problems).toEqual([]);
  const gaps = rest.filter(({ kind }) => kind === 'gap');
  expect(gaps.length).toBeGreaterThan(0);
  expect(gaps.every(({ isFailure }) => !isFailure)).toBe(true);
  const times = [...before, ...rest].map(({ time }) => time);
  expect(times).toEqual(times.toSorted((one, other) => one - other));
  expect(times.at(-1)).toBe(25_000e6);
  expect(file.isWrapped).toBe(true);
  file.close();
});

it('a block that came while blocks were looked for is missing, and no damage', () => {
  const trace = new MemoryTrace({ blocks: 6 });
  for (let i = 0; i < 8000; i++) {
    trace.recorder.access(0, false, 7, 0, Uint8Array.of(0));
  }
  const path = trace.save();
  const late = Buffer.from(trace.bytes);
  const second = late.indexOf('BLCK') + 64 * 1024;
  writeFileSync(path, late.fill(0, second, second + 16));
  const file = new TraceFile(path);
  const events = file.events();
  events.next();
  writeFileSync(path, trace.bytes);
  const gaps = [...events].filter(({ kind }) => kind === 'gap');
  expect(gaps).toMatchObject([{ isFailure: false }]);
  expect(file.problems).toEqual([]);
  file.close();
});

it.each([
  ['first', 0],
  ['second', 1],
])('a %s block that cannot be found is damage, where it would have been', (_which, block) => {
  const trace = new MemoryTrace({ blocks: 6 });
  for (let i = 0; i < 8000; i++) {
    trace.time = i;
    trace.recorder.access(0, false, 7, 0, Uint8Array.of(0));
  }
  const path = trace.save();
  const bytes = readFileSync(path);
  bytes.fill(
    0xff,
    bytes.indexOf('BLCK') + block * 64 * 1024,
    bytes.indexOf('BLCK') + block * 64 * 1024 + 16,
  );
  writeFileSync(path, bytes);
  const { events, file } = read(path);
  expect(file.problems).toEqual([expect.stringMatching(/^1 blocks .* cannot be read$/)]);
  expect(events.filter(({ kind, isFailure }) => kind === 'gap' && isFailure)).toHaveLength(1);
  const times = events.map(({ time }) => time);
  expect(times).toEqual(times.toSorted((one, other) => one - other));
});

it('what is written while it is read comes with `more`, also around the ring', () => {
  const trace = new MemoryTrace({ blocks: 3 });
  const path = trace.save();
  const file = new TraceFile(path);
  expect([...file.events()]).toEqual([]);
  const seen: number[] = [];
  for (let i = 0; i < 8000; i++) {
    trace.time = i;
    trace.recorder.access(0, false, 7, 0, Uint8Array.of(0));
    if (i % 500 === 499) {
      trace.recorder.flush();
      writeFileSync(path, trace.bytes);
      seen.push(...file.more().map(({ time }) => time / 1e6));
    }
  }
  file.close();
  expect(seen).toEqual(Array.from({ length: 8000 }, (_, i) => i));
});

it('a reader that is overtaken is told of the gap', () => {
  const trace = new MemoryTrace({ blocks: 3 });
  const path = trace.save();
  const file = new TraceFile(path);
  expect([...file.events()]).toEqual([]);
  for (let i = 0; i < 20_000; i++) {
    trace.recorder.access(0, false, 7, 0, Uint8Array.of(0));
  }
  trace.recorder.flush();
  writeFileSync(path, trace.bytes);
  expect(file.more().some(({ kind }) => kind === 'gap')).toBe(true);
  file.close();
});

it('of a file that is cut off, what is there is read, and it is said', () => {
  const trace = new MemoryTrace({ blocks: 4 });
  for (let i = 0; i < 4000; i++) {
    trace.recorder.access(0, false, 7, 0, Uint8Array.of(0));
  }
  const path = trace.save(trace.bytes.length - 3 * 64 * 1024 - 100);
  const { events, file } = read(path);
  expect(events.length).toBeGreaterThan(1000);
  expect(file.problems[0]).toMatch(/cut off/);
});

it.each([
  ['of a newer version', () => new MemoryTrace({ version: 2 }).save(), /version 2/],
  ['cut off in its header', () => new MemoryTrace().save(20), /cut off/],
  ['cut off in its description', () => new MemoryTrace().save(100), /description/],
  ['empty', () => new MemoryTrace().save(0), /not a trace/],
])('a file %s is refused with one line', (_name, make, message) => {
  expect(() => new TraceFile(make())).toThrow(message);
});

it('whoever has a file of a newer version is told to read it with the program that wrote it', () => {
  const path = new MemoryTrace({ version: 2 }).save();
  expect(() => new TraceFile(path)).toThrow(
    expect.objectContaining({ fix: 'read it with the program that recorded it' }),
  );
});

it('a record that was overwritten is said, and what follows its block is read', () => {
  const trace = new MemoryTrace({ blocks: 4 });
  for (let i = 0; i < 4000; i++) {
    trace.recorder.access(0, false, 7, 0, Uint8Array.of(0));
  }
  const path = trace.save();
  const bytes = readFileSync(path);
  const firstBlock = bytes.indexOf('BLCK');
  bytes.fill(0xff, firstBlock + 1000, firstBlock + 1100);
  writeFileSync(path, bytes);
  const { events, file } = read(path);
  expect(file.problems).toHaveLength(1);
  expect(events.length).toBeGreaterThan(2000);
  expect(events.some(({ kind, isFailure }) => kind === 'gap' && isFailure)).toBe(true);
});

it.each([
  ['a FIFO', (path: string) => execFileSync('mkfifo', [path])],
  ['a folder', (path: string) => mkdirSync(path)],
  ['nothing', () => {}],
  ['an empty file', (path: string) => writeFileSync(path, '')],
  ['zeros', (path: string) => writeFileSync(path, new Uint8Array(4096))],
  ['the first bytes of a trace', (path: string) => writeFileSync(path, TRACE_MARK)],
])('%s is refused at once, and named', (_what, make) => {
  const path = join(mkdtempSync(join(tmpdir(), 'trace-')), 'strange');
  make(path);
  expect(() => new TraceFile(path)).toThrow(path);
});

describe('a recording that is damaged while it is followed', () => {
  const many = (trace: MemoryTrace): void => {
    for (let i = 0; i < 4000; i++) {
      trace.recorder.access(0, false, 7, 0, Uint8Array.of(0));
    }
    trace.recorder.flush();
  };

  it('overwritten: what follows is read, and it is said once', () => {
    const trace = new MemoryTrace({ blocks: 4 });
    const path = trace.save();
    const file = new TraceFile(path);
    expect([...file.events()]).toEqual([]);
    many(trace);
    const bytes = Buffer.from(trace.bytes);
    const block = bytes.indexOf('BLCK');
    writeFileSync(path, bytes.fill(0xff, block + 1000, block + 1100));
    const events = file.more();
    expect(events.filter(({ kind, isFailure }) => kind === 'gap' && isFailure)).toHaveLength(1);
    expect(events.length).toBeGreaterThan(2000);
    expect(file.more()).toEqual([]);
    expect(file.problems).toHaveLength(1);
    file.close();
  });

  it('cut off', () => {
    const trace = new MemoryTrace({ blocks: 4 });
    const path = trace.save();
    const file = new TraceFile(path);
    expect([...file.events()]).toEqual([]);
    writeFileSync(path, trace.bytes.subarray(0, trace.bytes.length / 2));
    file.more();
    file.more();
    expect(file.problems).toEqual([expect.stringMatching(/cut off/)]);
    expect(file.isReplaced).toBe(false);
    file.close();
  });

  it.each([
    ['another begins in its place', () => new MemoryTrace({ startedMonotonic: 7n }).bytes],
    ['it is emptied for another', () => new Uint8Array()],
  ])('%s: nothing of that is taken for its own', (_what, replacement) => {
    const trace = new MemoryTrace({ blocks: 4 });
    many(trace);
    const path = trace.save();
    const file = new TraceFile(path);
    expect([...file.events()].length).toBeGreaterThan(2000);
    writeFileSync(path, replacement());
    expect([file.more(), file.more()]).toEqual([[], []]);
    expect(file.isReplaced).toBe(true);
    expect(file.problems).toEqual([
      'it has ended: another was begun in its file, or that was emptied',
    ]);
    file.close();
  });
});

it('of blocks that a damaged header promises none is looked for behind the end of the file', () => {
  const trace = new MemoryTrace();
  const blocks = FileHeader.size - 8 - 8 - 8 - 4 - 4;
  new DataView(trace.bytes.buffer).setUint32(blocks, 0xffff_ffff, true);
  trace.recorder.access(0, false, 7, 0, Uint8Array.of(0));
  const { events, file } = read(trace.save());
  expect(events).toHaveLength(1);
  expect(file.problems[0]).toMatch(/cut off/);
});

it.each([
  ['no tables', { pf: { ...DESCRIPTION.pf, tables: undefined } }],
  ['a config space of 3 bytes', { vf: { ...DESCRIPTION.vf, config: 'AAAA' } }],
  ['a register of no width', { pf: { ...DESCRIPTION.pf, tables: [table({ bytes: 0 })] } }],
  ['a name for VFs’ number', { totalVfs: 'many' }],
])('a description with %s is refused', (_what, change) => {
  const description = { ...DESCRIPTION, ...change } as typeof DESCRIPTION;
  expect(() => new TraceFile(new MemoryTrace({ description }).save())).toThrow(/description/);
});

function table(change: object) {
  const register = { offset: 0, bytes: 4, rw: 0, rw1c: 0, fields: {}, ...change };
  return { region: 0, title: 'Odd', offset: 0, table: { register } };
}
