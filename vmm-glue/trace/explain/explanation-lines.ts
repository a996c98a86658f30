// What `trace --explain` prints: what was found, and what could not be.

import { printable } from '../../../protocol/printable.ts';
import { byNumber } from '../reading/lines.ts';
import type { Explanation } from './judgement.ts';
import { findingLine, ruleOf } from './rules.ts';

export function explanationLines(explanation: Explanation): string[] {
  const { findings, more, unjudged, incomplete, grounds, mappedBefore } = explanation;
  return [
    ...findings.flatMap((finding) => findingLine(finding).split('\n')),
    ...more.map(({ rule, count }) => `and ${count} times more: ${ruleOf(rule).title}`),
    ...(findings.length === 0 ? ['nothing that the standard forbids'] : []),
    ...unjudged.map(({ rule, why }) => `not judged: ${rule}: ${why}`),
    ...incomplete.map(({ rule, why }) => `not judged everywhere: ${rule}: ${why}`),
    ...(grounds.startsLate ? ['not seen: what happened before the recording begins'] : []),
    ...(grounds.hasGaps ? ['not seen: what happened where events are missing'] : []),
    ...(mappedBefore.length === 0
      ? []
      : [
          `not seen, where it was mapped before the recording begins: ${mappedBefore.join(', ')}; --trap shows it`,
        ]),
    ...(grounds.unseen.length === 0
      ? []
      : [
          `not seen, because it was mapped: ${grounds.unseen.toSorted(byNumber).join(', ')}; --trap shows it`,
        ]),
  ].map(printable);
}
