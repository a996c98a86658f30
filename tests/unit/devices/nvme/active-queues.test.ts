import { beforeEach, expect, it } from 'vitest';
import { ActiveQueues } from '../../../../backend/devices/nvme/active-queues.ts';
import { CompletionQueue, SubmissionQueue } from '../../../../backend/devices/nvme/queues.ts';

const completions = new CompletionQueue(0, 0n, 2, undefined);
const [first, second, third] = [1, 2, 3].map(
  (id) => new SubmissionQueue(id, 0n, 2, completions),
) as [SubmissionQueue, SubmissionQueue, SubmissionQueue];
const anyOf = () => true;

let queues: ActiveQueues;
beforeEach(() => {
  queues = new ActiveQueues();
  for (const queue of [first, second, third, first]) {
    queues.add(queue);
  }
});

it('queues take turns, each once', () => {
  const served = [1, 2, 3, 4].map(() => queues.next(anyOf)?.id);
  expect(served).toEqual([1, 2, 3, 1]);
});

it('one that cannot be served keeps its place', () => {
  const isNotFirst = (queue: SubmissionQueue) => queue !== first;
  const served = [1, 2, 3].map(() => queues.next(isNotFirst)?.id);
  expect([...served, queues.next(anyOf)?.id]).toEqual([2, 3, 2, 1]);
  expect(queues.next(() => false)).toBeUndefined();
});

it('what is deleted, or does not stay, has no turn any more', () => {
  queues.delete(second);
  queues.keep((queue) => queue !== third);
  expect([queues.next(anyOf)?.id, queues.next(anyOf)?.id]).toEqual([1, 1]);
  expect(queues.some((queue) => queue === third)).toBe(false);
});
