// Has slots placed before an enable needs them: tells the glue once the guest has given the VF BARs their addresses, or a slot
// has lost its place, and things have been quiet for a while. protocol/hotplug/README.md 5.13 is the specification.
import type { Clock, Timer } from '../../protocol/clock.ts';
import { SLOTS_MOVED_QUIET_MILLISECONDS } from '../../protocol/hotplug/timing.ts';

export interface SlotsAheadOptions {
  readonly clock: Clock;
  /** A glue is there, VFs are off, and each of their BARs has an address. */
  arePlaceable(): boolean;
  /** Every slot is where its VF belongs, and answers. */
  arePlaced(): boolean;
  tellGlue(): void;
}

export class SlotsAhead {
  readonly #options: SlotsAheadOptions;
  #quiet: Timer | undefined;
  /** The glue does not know where slots are. */
  #isGlueNew = false;

  constructor(options: SlotsAheadOptions) {
    this.#options = options;
  }

  glueAttached(): void {
    this.#isGlueNew = true;
    this.changed();
  }

  /** Where VFs belong, where slots are, or whether VFs are on may not be as it was. */
  changed(): void {
    const { clock, tellGlue } = this.#options;
    this.#quiet?.cancel();
    if (!this.#isDue) {
      return;
    }
    this.#quiet = clock.after(SLOTS_MOVED_QUIET_MILLISECONDS, () => {
      if (this.#isDue) {
        this.#isGlueNew = false;
        tellGlue();
      }
    });
  }

  get #isDue(): boolean {
    const { arePlaceable, arePlaced } = this.#options;
    return arePlaceable() && (this.#isGlueNew || !arePlaced());
  }
}
