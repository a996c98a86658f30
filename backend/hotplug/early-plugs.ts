// VfPlugs that went out while their VFs still came up, so that a glue places the slots meanwhile: what each said, and how it
// was answered. Kept by HotplugChannel until the machine wants the VF plugged, or gives the enable up.
import type { Clock } from '../../protocol/clock.ts';
import type { VfPlug } from '../../protocol/hotplug/messages.ts';
import { EARLY_ANSWER_MILLISECONDS } from '../../protocol/hotplug/timing.ts';
import { maskOf } from '../pci/registers.ts';
import { HEADER } from '../pci/spec/header.ts';

/** How a VfPlug was answered. */
export interface PlugOutcome {
  readonly refusal?: string;
}

const MEMORY_SPACE_ENABLE = maskOf(HEADER.command, 'memorySpaceEnable');

/** What may change of a VF before it is up. */
type Place = Pick<VfPlug, 'bars' | 'placementLost' | 'slotCommand'>;

interface EarlyPlug {
  readonly generation: number;
  /** By the clock. */
  readonly sentAt: number;
  readonly said: Place;
  outcome: PlugOutcome | undefined;
  listener: ((outcome: PlugOutcome) => void) | undefined;
}

export class EarlyPlugs {
  readonly #plugs = new Map<number, EarlyPlug>();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A VfPlug goes out; gives what its answer is to be told to, and what that gives: whether it was passed on. */
  sent(vfIndex: number, generation: number, said: Place): (outcome: PlugOutcome) => boolean {
    const sentAt = this.#clock.now();
    const plug: EarlyPlug = { generation, sentAt, said, outcome: undefined, listener: undefined };
    this.#plugs.set(vfIndex, plug);
    return (outcome) => {
      plug.outcome = outcome;
      plug.listener?.(outcome);
      return plug.listener !== undefined;
    };
  }

  /**
   * The VF is up, at the place `now`: calls back with the answer, at once where it has come. `stale`: what was said does not
   * hold any more; `none`: nothing was said. Either way nobody is called back, and the VF is forgotten here.
   */
  take(
    vfIndex: number,
    generation: number,
    now: Place,
    answered: (outcome: PlugOutcome) => void,
  ): 'taken' | 'stale' | 'none' {
    const plug = this.#plugs.get(vfIndex);
    this.#plugs.delete(vfIndex);
    if (plug === undefined || plug.generation !== generation) {
      return 'none';
    }
    const isOld = this.#clock.now() - plug.sentAt > EARLY_ANSWER_MILLISECONDS;
    if (isOld || !isSamePlace(plug, now)) {
      return 'stale';
    }
    if (plug.outcome !== undefined) {
      answered(plug.outcome);
    } else {
      plug.listener = answered;
    }
    return 'taken';
  }

  /** Forgets everything; gives the VFs that were announced and are not wanted any more. */
  drain(): { vfIndex: number; generation: number }[] {
    const left = [...this.#plugs].map(([vfIndex, { generation }]) => ({ vfIndex, generation }));
    this.#plugs.clear();
    return left;
  }
}

/** Whether BARs of one VF, as they are listed, are where they were. */
export function areSameBars(before: VfPlug['bars'], now: VfPlug['bars']): boolean {
  return before.every(({ address }, i) => now[i]?.address === address);
}

/** The slot's Command has Memory Space Enable. */
function hasMemory({ slotCommand = 0 }: Place): boolean {
  return (slotCommand & MEMORY_SPACE_ENABLE) !== 0;
}

// A slot that was placed is not lost, unless it was reset since.
function isSamePlace({ said, outcome }: EarlyPlug, now: Place): boolean {
  const wasReset = now.placementLost === true && (outcome !== undefined || !said.placementLost);
  const wasSilenced = hasMemory(said) && !hasMemory(now);
  if (wasReset || wasSilenced) {
    return false;
  }
  return areSameBars(said.bars, now.bars);
}
