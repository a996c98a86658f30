// Where rules cannot be judged, or may miss something: each gives the reason, or undefined where there is none.

import type { Grounds } from './grounds.ts';
import { ENABLE_WAIT, isShort, passed } from './waits.ts';

/** The rule counts the guest's time. */
export function needsGuestTime({ mode, hasGlueEvents, hasGaps }: Grounds): string | undefined {
  if (hasGaps) {
    return 'events are missing, so that it is not known how long the guest stood still';
  }
  return mode === 'glue' && !hasGlueEvents
    ? 'the glue’s pauses are not in the trace, so that it is not known how long the guest stood still'
    : undefined;
}

/** The rule looks at writes to the MSI-X table. */
export function needsVectorTable(grounds: Grounds): string | undefined {
  const { mode, hasBoundVectors, hasGaps, startsLate } = grounds;
  if (hasGaps || startsLate) {
    return 'events are missing, so that it is not known whether MSI-X Enable was set in them';
  }
  return mode === 'glue' || hasBoundVectors
    ? 'the VMM keeps the MSI-X tables itself: what the guest writes there is not seen'
    : undefined;
}

/** The rule looks for accesses to VFs that are not there. */
export function missesAbsentVfs({ mode }: Grounds): string | undefined {
  return mode === 'vmm'
    ? 'a VMM that attaches VFs by itself answers for those that are not there: that is not seen'
    : undefined;
}

/** The rule looks for accesses to VFs too soon after VF Enable. */
export function missesEarlyAccesses({ mode, slowestEnable }: Grounds): string | undefined {
  return mode === 'vmm' && !isShort({ waited: slowestEnable, unheard: 0 }, ENABLE_WAIT)
    ? `VFs were up ${passed(slowestEnable)} after VF Enable: until then a VMM that attaches them by itself answers, unseen`
    : undefined;
}
