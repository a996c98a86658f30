// Whatever is wrong with a recording's bytes: all that can be made of it is made as far as it goes, or refused with one line.
import { readFileSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { EventKind } from '../../protocol/trace/format.ts';
import { UserError } from '../../protocol/user-error.ts';
import { explanationLines } from '../../vmm-glue/trace/explain/explanation-lines.ts';
import { Judgement } from '../../vmm-glue/trace/explain/judgement.ts';
import { differences } from '../../vmm-glue/trace/reading/difference.ts';
import { jsonLine, line, NO_COLOURS } from '../../vmm-glue/trace/reading/lines.ts';
import { type NamedEvent, Naming } from '../../vmm-glue/trace/reading/naming.ts';
import { Summary } from '../../vmm-glue/trace/reading/summary.ts';
import { TraceFile } from '../../vmm-glue/trace/reading/trace-file.ts';
import { page } from '../../vmm-glue/trace/timeline/page.ts';
import { perfetto } from '../../vmm-glue/trace/timeline/perfetto.ts';
import { enablePicture } from '../../vmm-glue/trace/timeline/svg.ts';
import { timelineOf } from '../../vmm-glue/trace/timeline/timeline.ts';
import { amountOf } from '../full.ts';
import { MemoryTrace } from '../unit/trace/ring.ts';

const SRIOV = 0x110;

/** One of each kind of record, again and again, around the ring. */
function sample(): string {
  const trace = new MemoryTrace({ blocks: 3 });
  const { recorder } = trace;
  const note = (kind: EventKind, detail: object): void => recorder.note(kind, 0xffff, detail);
  for (let i = 0; i < 60; i++) {
    trace.time = i;
    recorder.note(EventKind.session, 0, {
      what: 'agreed',
      role: 'glue',
      hotplug: { role: 'glue' },
    });
    recorder.access(0, true, 7, SRIOV + 0x10, Uint8Array.of(2, 0));
    recorder.access(0, true, 7, SRIOV + 0x08, Uint8Array.of(9, 0));
    recorder.answer(0, EventKind.access, 0.25, 0);
    recorder.access(i % 5, i % 2 === 0, 7, (4 * i) % 4096, Uint8Array.of(i & 0xff, 0, 1, 2));
    recorder.access(1, true, 0, (4 * i) % 4096, Uint8Array.of(i & 0xff, 0, 1, 2));
    note(EventKind.step, {
      event: { type: 'vfEnableSet', numVfs: 2 },
      before: 'disabled',
      after: 'creating',
    });
    note(EventKind.effect, { type: 'endEnable', outcome: 'failed', text: 'no room\u009b2J\u202e' });
    note(EventKind.hotplug, { message: 'VfPlug', direction: 'sent', vfIndex: 0 });
    note(EventKind.host, { name: 'createVfs', took: 2.5, error: 'ENOSPC' });
    note(EventKind.glue, {
      what: i % 2 === 0 ? 'stop' : 'cont',
      at: 5000 + i,
      took: 1,
      text: 'stop',
    });
    recorder.note(EventKind.reset, 1, { kind: 'function' });
    recorder.note(EventKind.mapped, 1, { region: 0 });
    recorder.dma(0, true, { address: BigInt(i), size: 4096n, flags: 3, fds: 1 });
    recorder.setIrqs(0, { index: 2, start: 0, count: 4, flags: 0x24, fds: 4 });
  }
  return trace.save();
}

const path = sample();
const sound = readFileSync(path);

function* named(file: TraceFile): Generator<NamedEvent> {
  const naming = new Naming(file.description);
  for (const event of file.events()) {
    yield* naming.name(event);
  }
}

/** Makes of the file all that `trace` makes of one; gives how many lines, or the one line that refuses it. */
function readAll(): { lines: number } | { refusal: string } {
  try {
    const file = new TraceFile(path);
    const { description, startedMonotonic } = file;
    const summary = new Summary();
    const judgement = new Judgement(description, startedMonotonic);
    const events = [...file.events()];
    for (const event of events) {
      summary.add(event);
      judgement.see(event);
    }
    judgement.end();
    const shown = [...named(file)];
    const printed = [
      ...shown.map((each) => line(each, NO_COLOURS)),
      ...summary.lines(),
      ...explanationLines(judgement.explanation),
    ];
    expect(printed.filter((each) => /\p{Cc}/u.test(each))).toEqual([]);
    for (const json of shown.map(jsonLine)) {
      expect(json).not.toMatch(/\p{Cc}/u);
      JSON.parse(json);
    }
    expect(differences(shown, named(file))).toEqual([]);
    const timeline = timelineOf(events, description, startedMonotonic);
    page(timeline);
    perfetto(timeline);
    enablePicture(timeline);
    file.more();
    file.close();
    return { lines: shown.length };
  } catch (error) {
    if (error instanceof UserError) {
      return { refusal: error.message };
    }
    throw error;
  }
}

function expectReadOrRefused(bytes: Uint8Array): void {
  writeFileSync(path, bytes);
  const result = readAll();
  expect('refusal' in result ? result.refusal.split('\n') : [result]).toHaveLength(1);
}

/** Bytes that are put over others; often into the header, or into what the recording says of its device. */
const DAMAGE = fc.record({
  at: fc.oneof(fc.nat({ max: 64 }), fc.nat({ max: 8192 }), fc.nat({ max: sound.length - 1 })),
  bytes: fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 64 }),
    fc.string({ minLength: 1, maxLength: 4 }).map((text) => Buffer.from(text)),
  ),
});

it('a trace damaged anywhere', () => {
  fc.assert(
    fc.property(fc.array(DAMAGE, { minLength: 1, maxLength: 8 }), (damages) => {
      const bytes = Buffer.from(sound);
      for (const { at, bytes: damage } of damages) {
        bytes.set(damage.subarray(0, bytes.length - at), at);
      }
      expectReadOrRefused(bytes);
    }),
    { numRuns: amountOf({ usual: 40, full: 2000 }) },
  );
});

it('a trace cut off anywhere', () => {
  fc.assert(
    fc.property(fc.nat({ max: sound.length }), (length) => {
      expectReadOrRefused(sound.subarray(0, length));
    }),
    { numRuns: amountOf({ usual: 20, full: 200 }) },
  );
});
