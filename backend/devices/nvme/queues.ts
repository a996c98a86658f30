// Submission and completion queues as rings in guest memory: where their entries are and who may put or take one. Pure.
// NVM Express 1.4, "Submission Queue & Completion Queue Definition".

import {
  COMPLETION_ENTRY_BYTES,
  type Completion,
  SUBMISSION_ENTRY_BYTES,
} from './spec/commands.ts';

export const ADMIN_QUEUE = 0;
export const LEAST_ENTRIES = 2;

/** The place after `index` in a ring of so many entries. */
export function after(index: number, entries: number): number {
  return index + 1 === entries ? 0 : index + 1;
}

/** Entries between `head` and `tail`; a ring holds one less than its size. */
export function filled(head: number, tail: number, entries: number): number {
  return tail >= head ? tail - head : tail + entries - head;
}

export class CompletionQueue {
  readonly id: number;
  readonly entries: number;
  /** Undefined where interrupts are not enabled. */
  readonly vector: number | undefined;
  readonly #base: bigint;
  /** The host's: what it has taken. */
  head = 0;
  /** Ours: where the next one goes. */
  tail = 0;
  phase: 0 | 1 = 1;
  /** Completions for which there was no room. */
  readonly waiting: Completion[] = [];
  /** Submission queues that complete here. */
  users = 0;
  /** Something was put since the last interrupt. */
  isNews = false;

  constructor(id: number, base: bigint, entries: number, vector: number | undefined) {
    this.id = id;
    this.#base = base;
    this.entries = entries;
    this.vector = vector;
  }

  get isFull(): boolean {
    return after(this.tail, this.entries) === this.head;
  }

  /** Whether another command may be fetched whose completion comes here. */
  get takesMore(): boolean {
    return this.waiting.length === 0 && !this.isFull;
  }

  /** Where the next completion goes, with which Phase Tag; moves on. */
  put(): { address: bigint; phase: 0 | 1 } {
    const place = {
      address: this.#base + BigInt(this.tail * COMPLETION_ENTRY_BYTES),
      phase: this.phase,
    };
    this.tail = after(this.tail, this.entries);
    if (this.tail === 0) {
      this.phase = this.phase === 1 ? 0 : 1;
    }
    this.isNews = true;
    return place;
  }

  /** The host took entries up to `head`; false where it cannot have, because they were not put. */
  takeUpTo(head: number): boolean {
    if (head >= this.entries) {
      return false;
    }
    const taken = filled(this.head, head, this.entries);
    if (taken > filled(this.head, this.tail, this.entries)) {
      return false;
    }
    this.head = head;
    return true;
  }
}

export class SubmissionQueue {
  readonly id: number;
  readonly entries: number;
  readonly completions: CompletionQueue;
  readonly #base: bigint;
  /** Ours: what was fetched. */
  head = 0;
  /** The host's. */
  tail = 0;

  constructor(id: number, base: bigint, entries: number, completions: CompletionQueue) {
    this.id = id;
    this.#base = base;
    this.entries = entries;
    this.completions = completions;
  }

  get isEmpty(): boolean {
    return this.head === this.tail;
  }

  /** The host put entries up to `tail`; false where the ring has no such place. */
  putUpTo(tail: number): boolean {
    if (tail >= this.entries) {
      return false;
    }
    this.tail = tail;
    return true;
  }

  /** Entries that lie one after the other from the head on, at most so many. */
  run(most: number): { address: bigint; count: number } {
    const end = this.tail >= this.head ? this.tail : this.entries;
    return {
      address: this.#base + BigInt(this.head * SUBMISSION_ENTRY_BYTES),
      count: Math.min(most, end - this.head),
    };
  }

  /** One entry was taken. */
  take(): void {
    this.head = after(this.head, this.entries);
  }
}
