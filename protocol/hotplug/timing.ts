// How long an enable of VFs may take in each of its steps, in milliseconds, on both sides of the hot-plug channel; pure.
// ARCHITECTURE.md draws them ("The time line of an enable"). They stand on each other: TIMING_RULES says how.

/** Software waits so long between VF Enable and its first look at a VF (PCIe 6.0, 9.3.3.3.1). */
export const GUEST_WAIT_MILLISECONDS = 100;

/**
 * A glue asks for the stop so long before that is over: it takes 1 ms, or more on hosts that are emulated in software.
 * Should it come late, the backend draws out each look of the guest until it has come.
 */
export const STOP_ROOM_MILLISECONDS = 10;

/** Of a host that needs longer than the guest waits: the guest runs on for so long before it is paused. */
export const RUN_ON_MILLISECONDS = GUEST_WAIT_MILLISECONDS - STOP_ROOM_MILLISECONDS;

/**
 * Where the host needs longer than the guest waits, the backend tells the glue of each VF so late: the host is to have begun with
 * them, and waits for its cards, where there is one CPU for all.
 */
export const TOLD_OF_VFS_MILLISECONDS = 30;

/**
 * The backend keeps the answer to the guest's write of VF Enable for so long at most, while the glue asks QEMU to stop the
 * guest. QEMU does nothing else while it waits for an answer.
 */
export const LONGEST_HOLD_MILLISECONDS = 100;

/** A look of the guest at a VF that comes before the pause is answered so late; between two looks QEMU can pause it. */
export const DRAWN_OUT_MILLISECONDS = 20;

/**
 * A look of the guest at a VF waits for a glue that has not answered EnableBegin, until so long after that was sent. Then the
 * VF is absent.
 */
export const SILENT_GLUE_MILLISECONDS = 1_000;

/** Longest that any answer to QEMU waits for the host, where the guest must not go on before it has finished. */
export const LONGEST_WAIT_FOR_HOST_MILLISECONDS = 4_000;

/** Stock QEMU's client gives up on an answer after this long, unless `x-msg-timeout` says otherwise. */
export const QEMU_PATIENCE_MILLISECONDS = 5_000;

/** How long VFs may take to be attached, by default: the backend ends the enable then (`--plug-timeout`). */
export const PLUG_TIMEOUT_MILLISECONDS = 10_000;

/** How long a VMM may take to let go of VFs, by default: who has not answered then counts as holding them (`--unplug-timeout`). */
export const UNPLUG_TIMEOUT_MILLISECONDS = 5_000;

/**
 * A glue places slots while the host makes its VFs. It says nothing when it gives the enable up, so an answer that is older
 * than this is asked for anew.
 */
export const EARLY_ANSWER_MILLISECONDS = 10_000;

/** A VMM that maps regions anew has so long to let go of VFs that go; then the host says whether it holds them. */
export const UNMAP_TIMEOUT_MILLISECONDS = 2_000;

/** The guest has not moved its VF BARs for so long, nor had a slot reset: the glue is told to place slots ahead of an enable. */
export const SLOTS_MOVED_QUIET_MILLISECONDS = 200;

/** A glue asks where slots belong while the guest stands still: a backend that has not answered by then is not waited for. */
export const SLOTS_ANSWER_MILLISECONDS = 1_000;

/** A glue ends an enable that its backend never ends, and lets the guest go on. */
export const ENABLE_LIMIT_MILLISECONDS = 20_000;

/** What must hold between them, each with its reason; a test asserts each. */
export const TIMING_RULES: readonly { readonly reason: string; readonly holds: boolean }[] = [
  {
    reason: 'a guest that runs on is asked to stop before it looks for its VFs',
    holds: RUN_ON_MILLISECONDS > 0 && RUN_ON_MILLISECONDS < GUEST_WAIT_MILLISECONDS,
  },
  {
    reason: 'a glue knows of each VF when it pauses the guest to place them',
    holds: TOLD_OF_VFS_MILLISECONDS < RUN_ON_MILLISECONDS,
  },
  {
    reason: 'a look that is drawn out lasts for as long as a stop may be late',
    holds: DRAWN_OUT_MILLISECONDS >= STOP_ROOM_MILLISECONDS,
  },
  {
    reason: 'a glue that answers late is still waited for when the guest looks',
    holds: SILENT_GLUE_MILLISECONDS > LONGEST_HOLD_MILLISECONDS + GUEST_WAIT_MILLISECONDS,
  },
  {
    reason:
      'a glue has the guest stand still for a silent backend no longer than a backend does for a silent glue',
    holds: SLOTS_ANSWER_MILLISECONDS <= SILENT_GLUE_MILLISECONDS,
  },
  {
    reason: 'QEMU gets its answer in time, however long a glue is silent',
    holds: SILENT_GLUE_MILLISECONDS < QEMU_PATIENCE_MILLISECONDS,
  },
  {
    reason: 'QEMU gets its answer in time, however long the glue and then the host take',
    holds:
      LONGEST_HOLD_MILLISECONDS + LONGEST_WAIT_FOR_HOST_MILLISECONDS < QEMU_PATIENCE_MILLISECONDS,
  },
  {
    reason: 'the backend ends an enable that takes too long, and says why, before the glue does',
    holds: PLUG_TIMEOUT_MILLISECONDS < ENABLE_LIMIT_MILLISECONDS,
  },
  {
    reason: 'an early answer that still counts belongs to an enable that the glue has not given up',
    holds: EARLY_ANSWER_MILLISECONDS + PLUG_TIMEOUT_MILLISECONDS <= ENABLE_LIMIT_MILLISECONDS,
  },
];
