// For how long a guest that has set VF Enable may run on before it is stopped: the shorter its pause, the less a guest
// notices of it, and a host needs longer for its VFs than any pause must. Pure; guest-pause.ts tells it of every stop.

/** From VF Enable to the first look at a VF: the PCIe standard's least time, and Linux's (`sriov_enable`). */
const GUEST_WAITS_MILLISECONDS = 100;
/** Of that, what is left to a busy machine that wakes this process late or stops the guest more slowly than ever. */
const MARGIN_MILLISECONDS = 40;
const LONGEST_MILLISECONDS = 50;
/** A stop is expected to take up to this many times the slowest one of late. */
const SLOWER_THAN_EVER = 1.5;
/** What a slow stop counts for fades with each one after it. */
const FADING = 0.9;
/** Until it has faded, stops are taken to be as slow as they were seen to be in a nested machine. */
const FIRST_EXPECTATION_MILLISECONDS = 20;

export class StopDelay {
  #slowest = FIRST_EXPECTATION_MILLISECONDS;

  /** A stop was answered after that long. */
  stopTook(milliseconds: number): void {
    this.#slowest = Math.max(milliseconds, this.#slowest * FADING);
  }

  /** How long to wait, so that the guest is certainly stopped before it looks; 0 where stops are slow. */
  get milliseconds(): number {
    const room = GUEST_WAITS_MILLISECONDS - MARGIN_MILLISECONDS - SLOWER_THAN_EVER * this.#slowest;
    return Math.min(LONGEST_MILLISECONDS, Math.max(0, room));
  }
}
