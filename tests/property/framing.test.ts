import fc from 'fast-check';
import { expect, it } from 'vitest';
import { encodeFrame, FrameAssembler, FramingError } from '../../protocol/vfio-user/framing.ts';

const MAX_FDS = 4;
const limits = { maxMessageBytes: 16 + 200, maxFds: MAX_FDS };

interface Sent {
  id: number;
  command: number;
  flags: number;
  body: number[];
  fdCount: number;
}

const message: fc.Arbitrary<Sent> = fc.record({
  id: fc.nat(0xffff),
  command: fc.nat(0xffff),
  flags: fc.constantFrom(0, 1, 0x10),
  body: fc.array(fc.nat(255), { maxLength: 200 }),
  fdCount: fc.nat(MAX_FDS),
});

interface Chunk {
  bytes: Uint8Array;
  fds: number[];
}

/**
 * What a kernel gives: pieces of the stream of any length, where the fds of a message come with its first bytes, and a
 * piece that brought fds ends within the message that they came with.
 */
function receive(messages: Sent[], lengths: number[]): { chunks: Chunk[]; fds: number[][] } {
  const chunks: Chunk[] = [];
  const allFds: number[][] = [];
  let next = 100;
  let turn = 0;
  let open: Chunk = { bytes: new Uint8Array(0), fds: [] };
  const flush = () => {
    if (open.bytes.length > 0) {
      chunks.push(open);
    }
    open = { bytes: new Uint8Array(0), fds: [] };
  };
  for (const { fdCount, body, ...head } of messages) {
    const fds = Array.from({ length: fdCount }, () => next++);
    allFds.push(fds);
    let rest = encodeFrame(head, new Uint8Array(body));
    let unsent = fds;
    while (rest.length > 0) {
      const take = Math.min(rest.length, lengths[turn++ % lengths.length]!);
      open.bytes = new Uint8Array(Buffer.concat([open.bytes, rest.subarray(0, take)]));
      open.fds.push(...unsent);
      const brought = unsent.length > 0;
      unsent = [];
      rest = rest.subarray(take);
      // A piece that is not the message's end, or that brought fds, ends the receive.
      if (rest.length > 0 || brought || take % 3 === 0) {
        flush();
      }
    }
  }
  flush();
  return { chunks, fds: allFds };
}

const lengths = fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 20 });

it('messages come out whole, in order and with their fds, however the stream was split', () => {
  fc.assert(
    fc.property(fc.array(message, { maxLength: 12 }), lengths, (messages, sizes) => {
      const { chunks, fds } = receive(messages, sizes);
      const assembler = new FrameAssembler(limits);
      const received: unknown[] = [];
      for (const { bytes, fds: arrived } of chunks) {
        assembler.push(bytes, arrived, (frame) => {
          const { id, command, flags } = frame;
          received.push({ id, command, flags, body: [...frame.body], fds: frame.fds });
        });
        bytes.fill(0xee);
      }
      expect(received).toEqual(
        messages.map(({ fdCount: _, ...sent }, i) => ({ ...sent, fds: fds[i] })),
      );
      expect(assembler.pendingBytes).toBe(0);
      expect(assembler.takePendingFds()).toEqual([]);
    }),
    { numRuns: 300 },
  );
});

it('a mutated stream with fds anywhere throws nothing but FramingError and loses no fd', () => {
  const mutation = fc.record({ at: fc.nat(5000), byte: fc.nat(255) });
  const fdCounts = fc.array(fc.nat(MAX_FDS + 2), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(
      fc.array(message, { minLength: 1, maxLength: 6 }),
      fc.array(mutation, { maxLength: 6 }),
      lengths,
      fdCounts,
      (messages, mutations, sizes, counts) => {
        const stream = new Uint8Array(
          Buffer.concat(messages.map(({ body, ...m }) => encodeFrame(m, new Uint8Array(body)))),
        );
        for (const { at, byte } of mutations) {
          stream[at % stream.length] = byte;
        }
        const assembler = new FrameAssembler(limits);
        const given: number[] = [];
        const taken: number[] = [];
        let at = 0;
        for (let turn = 0; at < stream.length; turn++) {
          const end = at + sizes[turn % sizes.length]!;
          const fds = Array.from(
            { length: counts[turn % counts.length]! },
            (_, i) => 1000 * turn + i,
          );
          given.push(...fds);
          try {
            assembler.push(stream.subarray(at, end), fds, (frame) => {
              expect(frame.fds.length).toBeLessThanOrEqual(MAX_FDS);
              expect(frame.body.length).toBeLessThanOrEqual(200);
              taken.push(...frame.fds);
            });
          } catch (error) {
            expect(error).toBeInstanceOf(FramingError);
          }
          expect(assembler.pendingBytes).toBeLessThan(limits.maxMessageBytes);
          at = end;
        }
        taken.push(...assembler.takePendingFds());
        expect(taken).toEqual(given);
      },
    ),
    { numRuns: 500 },
  );
});
