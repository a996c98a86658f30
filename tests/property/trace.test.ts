import { readFileSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { EventKind } from '../../protocol/trace/format.ts';
import { UserError } from '../../protocol/user-error.ts';
import { jsonLine, line, NO_COLOURS } from '../../vmm-glue/trace/reading/lines.ts';
import { Naming } from '../../vmm-glue/trace/reading/naming.ts';
import { TraceFile } from '../../vmm-glue/trace/reading/trace-file.ts';
import { MemoryTrace } from '../unit/trace/ring.ts';

function sample(): string {
  const trace = new MemoryTrace({ blocks: 3 });
  const { recorder } = trace;
  for (let i = 0; i < 3000; i++) {
    trace.time = i;
    recorder.access(i % 5, i % 2 === 0, 7, (4 * i) % 4096, Uint8Array.of(i & 0xff, 0, 1, 2));
    recorder.note(EventKind.step, 0xffff, { before: 'disabled', after: 'creating' });
    recorder.dma(0, true, { address: BigInt(i), size: 4096n, flags: 3, fds: 1 });
  }
  return trace.save();
}

const path = sample();
const sound = readFileSync(path);

/** Reads all of a file; gives its lines, or the one line that refuses it. */
function readAll(): { lines: number } | { refusal: string } {
  try {
    const file = new TraceFile(path);
    const naming = new Naming(file.description);
    let lines = 0;
    for (const event of file.events()) {
      for (const named of naming.name(event)) {
        expect(line(named, NO_COLOURS)).not.toMatch(/\p{Cc}/u);
        JSON.parse(jsonLine(named));
        lines++;
      }
    }
    file.more();
    file.close();
    return { lines };
  } catch (error) {
    if (error instanceof UserError) {
      return { refusal: error.message };
    }
    throw error;
  }
}

it('a trace damaged anywhere is read as far as it goes, or refused with one line', () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.record({
          at: fc.oneof(fc.nat({ max: 200 }), fc.nat({ max: sound.length - 1 })),
          bytes: fc.uint8Array({ minLength: 1, maxLength: 64 }),
        }),
        { minLength: 1, maxLength: 20 },
      ),
      (damages) => {
        const bytes = Buffer.from(sound);
        for (const { at, bytes: damage } of damages) {
          bytes.set(damage.subarray(0, bytes.length - at), at);
        }
        writeFileSync(path, bytes);
        const result = readAll();
        expect('refusal' in result ? result.refusal.split('\n') : [result]).toHaveLength(1);
      },
    ),
    { numRuns: 60 },
  );
});

it('a trace cut off anywhere is read as far as it goes, or refused with one line', () => {
  fc.assert(
    fc.property(fc.nat({ max: sound.length }), (length) => {
      writeFileSync(path, sound.subarray(0, length));
      const result = readAll();
      expect('refusal' in result ? result.refusal.split('\n') : [result]).toHaveLength(1);
    }),
    { numRuns: 40 },
  );
});
