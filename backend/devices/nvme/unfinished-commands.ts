// The commands of a controller that are not over when they have been taken: done in steps, each in turn, or waiting for the
// host's disk.

import type { Outcome, Steps } from './io-commands.ts';
import type { SubmissionQueue } from './queues.ts';
import type { Command } from './spec/commands.ts';
import { Status } from './spec/status.ts';

/** Commands that are done in steps: with more, none is fetched but the admin queue's. */
const MOST_STEPPING = 32;
/** The same of those that wait for the host's disk, aborted ones among them. */
const MOST_SYNCS = 256;

interface Unfinished {
  readonly queue: SubmissionQueue;
  readonly command: Command;
}

interface Stepping extends Unfinished {
  readonly steps: Steps;
}

export interface UnfinishedOptions {
  /** A command is over. */
  complete(queue: SubmissionQueue, command: Command, status: Status): void;
  /** There may be room for more, or something to tell. */
  wake(): void;
}

export class UnfinishedCommands {
  readonly #options: UnfinishedOptions;
  readonly #stepping: Stepping[] = [];
  readonly #waiting: Unfinished[] = [];
  #syncs = 0;
  #isStopped = false;

  constructor(options: UnfinishedOptions) {
    this.#options = options;
  }

  /** There are as many as there may be. */
  get areMany(): boolean {
    return this.#stepping.length >= MOST_STEPPING || this.#syncs >= MOST_SYNCS;
  }

  /** There is a step to do. */
  get hasSteps(): boolean {
    return this.#stepping.length > 0;
  }

  /** A command was begun: it may be over by now, and otherwise is completed when it is. */
  add(queue: SubmissionQueue, command: Command, begun: Outcome | Steps): void {
    if (typeof begun === 'function') {
      this.#stepping.push({ queue, command, steps: begun });
    } else {
      this.#end({ queue, command }, begun);
    }
  }

  /** Does one step of the command whose turn it is. */
  step(): void {
    const next = this.#stepping.shift();
    if (next === undefined) {
      return;
    }
    const outcome = next.steps();
    if (outcome === undefined) {
      this.#stepping.push(next);
    } else {
      this.#end(next, outcome);
    }
  }

  /** Where it waits, it is completed when the disk is done, unless it has been ended meanwhile. */
  #end({ queue, command }: Unfinished, outcome: Outcome): void {
    if (typeof outcome === 'number') {
      this.#options.complete(queue, command, outcome);
      return;
    }
    const entry = { queue, command };
    this.#waiting.push(entry);
    this.#syncs++;
    outcome.wait((status) => {
      this.#syncs--;
      const at = this.#waiting.indexOf(entry);
      if (at >= 0) {
        this.#waiting.splice(at, 1);
        this.#options.complete(queue, command, status);
      }
      if (!this.#isStopped) {
        this.#options.wake();
      }
    });
  }

  /** Ends a command before it is over; false where there is none of this identifier. */
  abort(queue: SubmissionQueue, identifier: number): boolean {
    const isMeant = (each: Unfinished): boolean =>
      each.queue === queue && each.command.identifier === identifier;
    return this.#endAll(isMeant, Status.abortRequested) > 0;
  }

  /** Ends all commands of a queue that is deleted. */
  endWith(queue: SubmissionQueue): void {
    this.#endAll((each) => each.queue === queue, Status.abortedByQueueDeletion);
  }

  #endAll(isMeant: (each: Unfinished) => boolean, status: Status): number {
    const ended = [...taken(this.#stepping, isMeant), ...taken(this.#waiting, isMeant)];
    for (const { queue, command } of ended) {
      this.#options.complete(queue, command, status);
    }
    return ended.length;
  }

  /** Nothing is completed any more. */
  stop(): void {
    this.#isStopped = true;
    this.#stepping.length = 0;
    this.#waiting.length = 0;
  }
}

/** Takes them out of the list. */
function taken<T>(list: T[], isMeant: (each: T) => boolean): T[] {
  const found = list.filter(isMeant);
  list.splice(0, list.length, ...list.filter((each) => !isMeant(each)));
  return found;
}
