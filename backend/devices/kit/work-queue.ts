// Work of a device in bounded batches: all functions of it share one budget for each turn of the device thread, so that
// no session waits long for another's. Tasks take turns, one step at a time.

import type { Clock } from '../../../protocol/clock.ts';

/** Milliseconds of each turn that all tasks may take together; one step more may follow, or the rest of one. */
const BUDGET_MILLISECONDS = 0.1;

/** A piece of work; whether there is more. `isOver`: it is to end early, because this turn's time is used up. */
export type Step = (isOver: () => boolean) => boolean;

interface Task {
  readonly owner: object;
  readonly step: Step;
}

export class WorkQueue {
  readonly #clock: Clock;
  readonly #tasks: Task[] = [];
  readonly #isOver = (): boolean => this.#isSpent(this.#clock.now());
  #running: Task | undefined;
  #began = 0;
  #spent = 0;
  #isTicking = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls `step` until it gives false: now, as long as this turn has time left, and in later turns. */
  add(owner: object, step: Step): void {
    this.#tasks.push({ owner, step });
    if (this.#running === undefined && this.#tasks.length === 1) {
      this.#run();
    }
    this.#tick();
  }

  /** Forgets what is left of an owner's tasks. */
  forget(owner: object): void {
    for (let at = this.#tasks.length - 1; at >= 0; at--) {
      if (this.#tasks[at]!.owner === owner) {
        this.#tasks.splice(at, 1);
      }
    }
    if (this.#running?.owner === owner) {
      this.#running = undefined;
    }
  }

  #run(): void {
    let now = this.#clock.now();
    this.#began = now;
    while (this.#tasks.length > 0 && !this.#isSpent(now)) {
      const task = this.#tasks.shift()!;
      this.#running = task;
      // A task that was forgotten meanwhile is not the running one any more.
      if (task.step(this.#isOver) && this.#running === task) {
        this.#tasks.push(task);
      }
      now = this.#clock.now();
    }
    this.#running = undefined;
    this.#spent += now - this.#began;
  }

  #isSpent(now: number): boolean {
    return this.#spent + (now - this.#began) >= BUDGET_MILLISECONDS;
  }

  /** Goes on behind what else this turn has to do, with what is left of its budget; then there is a new one. */
  #tick(): void {
    if (this.#isTicking) {
      return;
    }
    this.#isTicking = true;
    this.#clock.after(0, () => {
      this.#isTicking = false;
      this.#run();
      this.#spent = 0;
      if (this.#tasks.length > 0) {
        this.#tick();
      }
    });
  }
}
