// A controller's queues: which exist, and the rules by which hosts create and delete them. NVM Express 1.4, "Create I/O
// Completion Queue command" and its siblings.

import { ADMIN_QUEUE, CompletionQueue, LEAST_ENTRIES, SubmissionQueue } from './queues.ts';
import type { Command } from './spec/commands.ts';
import { Status } from './spec/status.ts';

/** MQES is one less. */
export const MOST_ENTRIES = 1024;
const CONTIGUOUS = 1;
const INTERRUPTS = 2;

export class QueueSet {
  readonly submissions = new Map<number, SubmissionQueue>();
  readonly completions = new Map<number, CompletionQueue>();
  /** I/O queues have identifiers up to this. */
  readonly #most: number;
  readonly #vectors: number;
  readonly #pageBytes: number;

  constructor(ioQueues: number, vectors: number, pageBytes: number) {
    this.#most = ioQueues;
    this.#vectors = vectors;
    this.#pageBytes = pageBytes;
  }

  get hasIoQueues(): boolean {
    return this.submissions.size > 1 || this.completions.size > 1;
  }

  addAdmin(submission: { base: bigint; entries: number }, completion: typeof submission): void {
    const completions = new CompletionQueue(ADMIN_QUEUE, completion.base, completion.entries, 0);
    completions.users = 1;
    this.completions.set(ADMIN_QUEUE, completions);
    const { base, entries } = submission;
    this.submissions.set(ADMIN_QUEUE, new SubmissionQueue(ADMIN_QUEUE, base, entries, completions));
  }

  createCompletion(command: Command): Status {
    const { id, entries, status } = this.#checked(command, this.completions);
    if (status !== Status.success) {
      return status;
    }
    const vector = command.dword11 >>> 16;
    if (vector >= this.#vectors) {
      return Status.invalidInterruptVector;
    }
    const isHeard = (command.dword11 & INTERRUPTS) !== 0;
    this.completions.set(
      id,
      new CompletionQueue(id, command.prp1, entries, isHeard ? vector : undefined),
    );
    return Status.success;
  }

  createSubmission(command: Command): Status {
    const completionId = command.dword11 >>> 16;
    if (completionId === ADMIN_QUEUE || completionId > this.#most) {
      return Status.invalidQueueIdentifier;
    }
    const completions = this.completions.get(completionId);
    if (completions === undefined) {
      return Status.completionQueueInvalid;
    }
    const { id, entries, status } = this.#checked(command, this.submissions);
    if (status !== Status.success) {
      return status;
    }
    completions.users++;
    this.submissions.set(id, new SubmissionQueue(id, command.prp1, entries, completions));
    return Status.success;
  }

  /** The queue that is gone, or why it is not. */
  deleteSubmission(id: number): SubmissionQueue | Status {
    const queue = this.submissions.get(id);
    if (id === ADMIN_QUEUE || queue === undefined) {
      return Status.invalidQueueIdentifier;
    }
    queue.completions.users--;
    this.submissions.delete(id);
    return queue;
  }

  deleteCompletion(id: number): Status {
    const queue = this.completions.get(id);
    if (id === ADMIN_QUEUE || queue === undefined) {
      return Status.invalidQueueIdentifier;
    }
    if (queue.users > 0) {
      return Status.invalidQueueDeletion;
    }
    this.completions.delete(id);
    return Status.success;
  }

  /** Dword 10 has the identifier and the size, 0's based; Dword 11 bit 0, physically contiguous. */
  #checked(
    { dword10, dword11, prp1 }: Command,
    existing: ReadonlyMap<number, unknown>,
  ): { id: number; entries: number; status: Status } {
    const id = dword10 & 0xffff;
    const entries = (dword10 >>> 16) + 1;
    let status: Status = Status.success;
    if (id === ADMIN_QUEUE || id > this.#most || existing.has(id)) {
      status = Status.invalidQueueIdentifier;
    } else if (entries < LEAST_ENTRIES || entries > MOST_ENTRIES) {
      status = Status.invalidQueueSize;
    } else if ((dword11 & CONTIGUOUS) === 0) {
      status = Status.invalidField;
    } else if ((prp1 & BigInt(this.#pageBytes - 1)) !== 0n) {
      status = Status.invalidPrpOffset;
    }
    return { id, entries, status };
  }
}
