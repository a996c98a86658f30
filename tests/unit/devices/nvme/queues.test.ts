import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { doorbellAt, doorbellOffset } from '../../../../backend/devices/nvme/doorbells.ts';
import {
  CompletionQueue,
  filled,
  SubmissionQueue,
} from '../../../../backend/devices/nvme/queues.ts';

const BASE = 0x10_0000n;

describe('a submission queue', () => {
  it('gives every entry once and in order, however the host puts them and however much is fetched', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 40 }),
        fc.array(fc.tuple(fc.nat(40), fc.integer({ min: 1, max: 16 })), { maxLength: 60 }),
        (entries, steps) => {
          const queue = new SubmissionQueue(1, BASE, entries, undefined as never);
          let [put, taken] = [0, 0];
          for (const [more, most] of steps) {
            put += Math.min(more, entries - 1 - (put - taken));
            expect(queue.putUpTo(put % entries)).toBe(true);
            expect(filled(queue.head, queue.tail, entries)).toBe(put - taken);
            const { address, count } = queue.run(most);
            expect(count).toBeLessThanOrEqual(Math.min(most, put - taken));
            expect(count > 0).toBe(put > taken);
            expect(address).toBe(BASE + BigInt((taken % entries) * 64));
            // A run never goes past the ring's end.
            expect((taken % entries) + count).toBeLessThanOrEqual(entries);
            for (let index = 0; index < count; index++) {
              queue.take();
            }
            taken += count;
          }
        },
      ),
    );
  });

  it('refuses a tail that it has not', () => {
    const queue = new SubmissionQueue(1, BASE, 4, undefined as never);
    expect([queue.putUpTo(3), queue.putUpTo(4), queue.putUpTo(0xffff)]).toEqual([
      true,
      false,
      false,
    ]);
    expect(queue.tail).toBe(3);
  });
});

describe('a completion queue', () => {
  it('never overwrites what the host has not taken, and turns its phase with each round', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 40 }),
        fc.array(fc.tuple(fc.nat(40), fc.nat(40)), { maxLength: 60 }),
        (entries, steps) => {
          const queue = new CompletionQueue(1, BASE, entries, 0);
          let [put, taken] = [0, 0];
          for (const [puts, takes] of steps) {
            for (let index = 0; index < puts && !queue.isFull; index++) {
              const { address, phase } = queue.put();
              expect(address).toBe(BASE + BigInt((put % entries) * 16));
              expect(phase).toBe(Math.floor(put / entries) % 2 === 0 ? 1 : 0);
              put++;
            }
            expect(put - taken).toBeLessThan(entries);
            expect(queue.isFull).toBe(put - taken === entries - 1);
            taken += Math.min(takes, put - taken);
            expect(queue.takeUpTo(taken % entries)).toBe(true);
          }
        },
      ),
    );
  });

  it('refuses a head beyond what was put, or that it has not', () => {
    const queue = new CompletionQueue(1, BASE, 4, 0);
    queue.put();
    expect([queue.takeUpTo(2), queue.takeUpTo(4), queue.takeUpTo(1)]).toEqual([false, false, true]);
    expect(queue.takeUpTo(0)).toBe(false);
  });
});

describe('doorbells', () => {
  it('are found again at every stride, and nothing lies between them', () => {
    fc.assert(
      fc.property(fc.nat(15), fc.nat(65_535), fc.boolean(), (stride, queue, isCompletion) => {
        const offset = doorbellOffset({ queue, isCompletion }, stride);
        expect(doorbellAt(offset, stride)).toEqual({ queue, isCompletion });
        expect(doorbellAt(offset + 2, stride)).toBeUndefined();
      }),
    );
  });

  it('lie as the standard says', () => {
    expect(doorbellOffset({ queue: 1, isCompletion: true }, 0)).toBe(0xc);
    expect(doorbellOffset({ queue: 2, isCompletion: false }, 2)).toBe(0x40);
  });
});
