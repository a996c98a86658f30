// The commands that a server sends to one client, which answers them as it likes: their ids, and who waits for which answer.

import type { Frame } from '../../protocol/vfio-user/framing.ts';
import type { ReplyTaker } from '../hotplug/endpoint.ts';

/** So many may be unanswered at once: each needs an id of its own. */
const MOST_UNANSWERED = 0xffff;

export class OwnCommands {
  readonly #unanswered = new Map<number, { command: number; done: ReplyTaker }>();
  #nextId = 1;

  get areTooMany(): boolean {
    return this.#unanswered.size === MOST_UNANSWERED;
  }

  /** Whether the client owes an answer. */
  get areUnanswered(): boolean {
    return this.#unanswered.size > 0;
  }

  /** Gives the id for one that is about to be sent; `done` gets its answer, or undefined when the client has gone. */
  begin(command: number, done: ReplyTaker | undefined): number {
    while (this.#unanswered.has(this.#nextId)) {
      this.#nextId = idAfter(this.#nextId);
    }
    const id = this.#nextId;
    this.#nextId = idAfter(id);
    if (done !== undefined) {
      this.#unanswered.set(id, { command, done });
    }
    return id;
  }

  /** Whether somebody waits for this reply. */
  expects({ id, command }: Frame): boolean {
    return this.#unanswered.get(id)?.command === command;
  }

  /** Gives a reply that is expected to whoever waits, for whom the waiting ends if it throws, too. */
  answered(frame: Frame): void {
    const { done } = this.#unanswered.get(frame.id)!;
    let isAnswer = true;
    try {
      isAnswer = done(frame);
    } finally {
      if (isAnswer) {
        this.#unanswered.delete(frame.id);
      }
    }
  }

  /** The client has gone. */
  end(): void {
    const waiting = [...this.#unanswered.values()];
    this.#unanswered.clear();
    for (const { done } of waiting) {
      done(undefined);
    }
  }
}

function idAfter(id: number): number {
  return id === 0xffff ? 1 : id + 1;
}
