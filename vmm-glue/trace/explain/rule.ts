// What a rule is: what is watched, what breaks it, and where it can be judged.

import type { Grounds } from './grounds.ts';
import type { GuestModel, Observation } from './guest-model.ts';

export interface Finding {
  readonly rule: string;
  /** When it happened, and when what it refers to did; nanoseconds since the trace began. */
  readonly time: number;
  readonly since?: number;
  readonly text: string;
}

export type Tell = (finding: Omit<Finding, 'rule'>) => void;

export interface Rule {
  readonly id: string;
  readonly title: string;
  /** The standard's sentence, in our words. */
  readonly standard: string;
  /** Why what it finds may be wrong on these grounds, so that it is not judged; undefined: it is right. */
  unjudged?(grounds: Grounds): string | undefined;
  /** Why it may miss something on these grounds; what it finds is right. Undefined: it misses nothing. */
  misses?(grounds: Grounds): string | undefined;
  /** A watcher of one trace; `end` is called when there are no more events. */
  watch(model: GuestModel, tell: Tell, totalVfs: number): Watcher;
}

export interface Watcher {
  see(observation: Observation): void;
  end?(time: number): void;
}
