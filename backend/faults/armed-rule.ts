// A rule that is armed: counts its occasions, and says at which of them it fires. Pure.

import type { Occasion } from '../device/faults.ts';
import type { FaultRule } from './parse-rule.ts';

/** How far a rule has come. */
export class ArmedRule {
  readonly rule: FaultRule;
  /** Occasions that its conditions hold for. */
  #seen = 0;
  #fired = 0;

  constructor(rule: FaultRule) {
    this.rule = rule;
  }

  get fired(): number {
    return this.#fired;
  }

  /** Whether it has begun to last for this function. */
  lasts(occasion: Occasion): boolean {
    return this.rule.spec.isLasting === true && this.#fired > 0 && this.concerns(occasion);
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
    const { after = 0, every = 1, times = this.rule.spec.times } = this.rule.conditions;
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

  /** Whether it is about this function and vector, and what else the kind of device looks at. */
  concerns({ function: name, vector, own = {} }: Occasion): boolean {
    const { subject, conditions, own: conditionsOfKind } = this.rule;
    const index = name === 'pf' ? -1 : Number(name.slice(2));
    return (
      isOrAny(subject, index) &&
      isOrAny(conditions.function, index) &&
      isOrAny(conditions.vector, vector) &&
      conditionsOfKind.every((each) => {
        const is = own[each.name];
        return is === undefined || each.concerns(each.wanted, is);
      })
    );
  }
}

function isOrAny(wanted: number | undefined, is: number | undefined): boolean {
  return wanted === undefined || wanted === is;
}
