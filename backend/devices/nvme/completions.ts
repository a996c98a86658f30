// The completions of a controller that is enabled: put into the host's queues as far as there is room, kept where there is
// none, and told of by interrupts. NVM Express 1.4, "Completion Queue Entry".

import type { FunctionPort } from '../kit/declaration.ts';
import type { QueueSet } from './queue-set.ts';
import type { CompletionQueue, SubmissionQueue } from './queues.ts';
import type { ShadowDoorbells } from './shadow-doorbells.ts';
import { COMPLETION_ENTRY_BYTES, type Completion, encodeCompletion } from './spec/commands.ts';
import type { Status } from './spec/status.ts';

export class Completions {
  readonly #port: Pick<FunctionPort, 'memory' | 'raise'>;
  readonly #queues: QueueSet;
  readonly #failed: (why: string) => void;
  readonly #entry = new Uint8Array(COMPLETION_ENTRY_BYTES);
  /** The host's, where it has some. */
  shadows: ShadowDoorbells | undefined;

  /** `failed`: a queue cannot be written. */
  constructor(
    port: Pick<FunctionPort, 'memory' | 'raise'>,
    queues: QueueSet,
    failed: (why: string) => void,
  ) {
    this.#port = port;
    this.#queues = queues;
    this.#failed = failed;
  }

  /** Completes a command of a queue. */
  post(queue: SubmissionQueue, identifier: number, status: Status, result: number): void {
    const completion: Completion = {
      result,
      submissionHead: queue.head,
      submissionQueue: queue.id,
      identifier,
      status,
    };
    const { completions } = queue;
    if (this.hasRoom(completions)) {
      this.#put(completions, completion);
    } else {
      completions.waiting.push(completion);
    }
  }

  #put(queue: CompletionQueue, completion: Completion): void {
    const { address, phase } = queue.put();
    encodeCompletion(completion, phase, this.#entry);
    if (!this.#port.memory.write(address, this.#entry)) {
      this.#failed(`completion queue ${queue.id} cannot be written`);
    }
  }

  /** Puts what had to wait for room. */
  flush(): void {
    for (const queue of this.#queues.completions.values()) {
      while (queue.waiting.length > 0 && !this.#isFull(queue)) {
        this.#put(queue, queue.waiting.shift()!);
      }
    }
  }

  /** Whether there is room for the completion of one more command. */
  hasRoom(queue: CompletionQueue): boolean {
    return queue.waiting.length === 0 && !this.#isFull(queue);
  }

  /** Raises the vectors of the queues that have something new. */
  interrupt(): void {
    for (const queue of this.#queues.completions.values()) {
      if (queue.isNews) {
        queue.isNews = false;
        if (queue.vector !== undefined) {
          this.#port.raise(queue.vector);
        }
      }
    }
  }

  /** A host with shadow doorbells may have made room without a word; from here on it says so. */
  #isFull(queue: CompletionQueue): boolean {
    const { shadows } = this;
    if (!queue.isFull || shadows === undefined) {
      return queue.isFull;
    }
    const doorbell = { queue: queue.id, isCompletion: true };
    queue.takeUpTo(shadows.read(doorbell) ?? queue.head);
    if (queue.isFull) {
      shadows.setEvent(doorbell, queue.head);
      queue.takeUpTo(shadows.read(doorbell) ?? queue.head);
    }
    return queue.isFull;
  }
}
