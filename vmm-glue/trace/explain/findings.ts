// What was found, so much of each rule: a guest that breaks one a million times fills no memory.

import type { Finding } from './rule.ts';

/** Of one rule. */
const MOST = 100;

export class Findings {
  readonly #first: Finding[] = [];
  readonly #newest = new Map<string, Finding>();
  readonly #counts = new Map<string, number>();

  add(finding: Finding): void {
    const count = (this.#counts.get(finding.rule) ?? 0) + 1;
    this.#counts.set(finding.rule, count);
    this.#newest.set(finding.rule, finding);
    if (count <= MOST) {
      this.#first.push(finding);
    }
  }

  /** The first of each rule, by their time. */
  of(isJudged: (rule: string) => boolean): Finding[] {
    return this.#first
      .filter(({ rule }) => isJudged(rule))
      .sort((one, other) => one.time - other.time);
  }

  /** How many more there are than `of` gives, by rule. */
  more(isJudged: (rule: string) => boolean): { rule: string; count: number }[] {
    return [...this.#counts]
      .filter(([rule, count]) => count > MOST && isJudged(rule))
      .map(([rule, count]) => ({ rule, count: count - MOST }));
  }

  /** The newest of all. */
  last(isJudged: (rule: string) => boolean): Finding | undefined {
    let last: Finding | undefined;
    for (const finding of this.#newest.values()) {
      if (isJudged(finding.rule) && finding.time >= (last?.time ?? 0)) {
        last = finding;
      }
    }
    return last;
  }
}
