// A rule that is armed: counts its occasions, and says at which of them it fires. Pure.

import type { Occasion } from '../device/faults.ts';
import type { FaultRule } from './parse-rule.ts';
import { ADMIN, FAULTS, type FaultSpec } from './spec.ts';

/** How far a rule has come. */
export class ArmedRule {
  readonly rule: FaultRule;
  readonly #spec: FaultSpec;
  /** Occasions that its conditions hold for. */
  #seen = 0;
  #fired = 0;

  constructor(rule: FaultRule) {
    this.rule = rule;
    this.#spec = FAULTS[rule.name];
  }

  get fired(): number {
    return this.#fired;
  }

  /** Whether it has begun to last for this function. */
  lasts(occasion: Occasion): boolean {
    return this.#spec.isLasting === true && this.#fired > 0 && this.concerns(occasion);
  }

  /** Counts the occasion; whether it fires. */
  meets(occasion: Occasion): boolean {
    if (!this.concerns(occasion)) {
      return false;
    }
    if (this.lasts(occasion)) {
      return true;
    }
    this.#seen++;
    const { after = 0, every = 1, times = this.#spec.times } = this.rule.conditions;
    const fires =
      this.#seen > after &&
      (this.#seen - after) % every === 0 &&
      (times === undefined || this.#fired < times);
    if (fires) {
      this.#fired++;
    }
    return fires;
  }

  /** It fires, whatever its counts. */
  fire(): void {
    this.#fired++;
  }

  /** Whether it is about this function, vector and command. */
  concerns({ function: name, vector, opcode, isAdmin = false }: Occasion): boolean {
    const { subject, conditions } = this.rule;
    const index = name === 'pf' ? -1 : Number(name.slice(2));
    return (
      isOrAny(subject, index) &&
      isOrAny(conditions.function, index) &&
      isOrAny(conditions.vector, vector) &&
      this.#concernsCommand(opcode, isAdmin)
    );
  }

  /** Unless told otherwise, commands are those of I/O queues: a driver that cannot set up its queues shows nothing. */
  #concernsCommand(opcode: number | undefined, isAdmin: boolean): boolean {
    const wanted = this.rule.conditions.opcode;
    if (opcode === undefined) {
      return true;
    }
    return wanted === undefined ? !isAdmin : wanted === (isAdmin ? opcode | ADMIN : opcode);
  }
}

function isOrAny(wanted: number | undefined, is: number | undefined): boolean {
  return wanted === undefined || wanted === is;
}
