// The words of the SR-IOV machine (machine.ts): what states it has, what can happen to it, what it wants done.

/** Why VFs are taken away; the words of VfUnplug. */
export type UnplugReason = 'guestDisabled' | 'pfReset' | 'vfLost' | 'shuttingDown';

/** A VF that is not free: its index, and who holds it as far as that is known. */
export interface Holder {
  readonly vfIndex: number;
  readonly holder: string;
}

/** An enable that waits until the VFs before it are gone. */
export interface Wish {
  readonly count: number;
  readonly generation: number;
}

/** What is the same for all VFs of one enable. */
export interface Vfs {
  /** NumVFs as latched when the guest set VF Enable. */
  readonly count: number;
  readonly generation: number;
  /** The highest generation given out so far. */
  readonly lastGeneration: number;
}

/** `failure`, in any phase: why the guest's last enable has no VFs, until the next one. */
export type State =
  | { readonly phase: 'disabled'; readonly lastGeneration: number; readonly failure?: string }
  /** `cancelled`: the VFs are taken away again as soon as the host has made them. */
  | ({
      readonly phase: 'creating';
      readonly cancelled: boolean;
      readonly wish?: Wish;
      readonly failure?: string;
    } & Vfs)
  | ({ readonly phase: 'plugging'; readonly unanswered: readonly number[] } & Vfs)
  | ({ readonly phase: 'enabled' } & Vfs)
  | ({
      readonly phase: 'unplugging';
      readonly unanswered: readonly number[];
      readonly wish?: Wish;
      readonly failure?: string;
    } & Vfs)
  | ({
      readonly phase: 'releasing';
      readonly wish?: Wish;
      readonly failure?: string;
      /** What was last said of VFs that somebody holds; it is not said again. */
      readonly quarantine?: string;
    } & Vfs)
  | ({
      readonly phase: 'quarantined';
      /** VFs whose VfUnplug the VMM has not answered. */
      readonly unanswered: readonly number[];
      readonly held: readonly Holder[];
      readonly failure?: string;
    } & Vfs)
  | ({ readonly phase: 'destroying'; readonly wish?: Wish; readonly failure?: string } & Vfs);

export type Phase = State['phase'];

export type Event =
  /** The guest set VF Enable. `obstacle`: why no VF can be brought into the VM just now, where that is so. */
  | { readonly type: 'vfEnableSet'; readonly numVfs: number; readonly obstacle?: string }
  /** VF Enable went from 1 to 0, by the guest, by a reset or because everything ends. */
  | { readonly type: 'vfEnableCleared'; readonly reason: UnplugReason }
  | { readonly type: 'vfsCreated' }
  | { readonly type: 'createFailed'; readonly text: string }
  /** The host made the VFs, but one of them cannot be used here. */
  | { readonly type: 'bringUpFailed'; readonly text: string }
  | {
      readonly type: 'plugAnswered';
      readonly vfIndex: number;
      readonly generation: number;
      readonly refusal?: string;
    }
  | {
      readonly type: 'unplugAnswered';
      readonly vfIndex: number;
      readonly generation: number;
      readonly refusal?: string;
    }
  /** `vmmHolds`: an unanswered VfUnplug means that the VMM may still have the VF open (native VFs, not slots). */
  | {
      readonly type: 'unplugDeadlinePassed';
      readonly generation: number;
      readonly vmmHolds: boolean;
    }
  | { readonly type: 'plugDeadlinePassed'; readonly generation: number }
  | { readonly type: 'retryDue'; readonly generation: number }
  | { readonly type: 'vfsReleased'; readonly held: readonly Holder[] }
  | { readonly type: 'vfsDestroyed' }
  | { readonly type: 'destroyFailed'; readonly text: string }
  /** The one who plugs VFs has disconnected: whatever it still owed an answer for is settled. */
  | { readonly type: 'peerDetached' }
  /** The kernel wants a VF back. */
  | { readonly type: 'vfLost'; readonly vfIndex: number };

/** The events that a timer may bring. */
export type TimerEvent = 'plugDeadlinePassed' | 'unplugDeadlinePassed' | 'retryDue';

export type Effect =
  | { readonly type: 'beginEnable'; readonly generation: number; readonly count: number }
  /** VFs that sit in slots can be placed while the host makes them: the peer is told of them, a glue places them. */
  | { readonly type: 'placeVfs'; readonly generation: number; readonly count: number }
  | {
      readonly type: 'endEnable';
      readonly generation: number;
      readonly outcome: 'enabled' | 'failed';
      readonly text: string;
    }
  | { readonly type: 'createVfs'; readonly generation: number; readonly count: number }
  | { readonly type: 'plugVfs'; readonly generation: number; readonly count: number }
  /** The VFs answer to the guest from now on. */
  | { readonly type: 'activateVfs'; readonly count: number }
  /** The VFs read as absent from now on. */
  | { readonly type: 'deactivateVfs' }
  | {
      readonly type: 'unplugVfs';
      readonly generation: number;
      readonly vfIndexes: readonly number[];
      readonly reason: UnplugReason;
      readonly deadlineMilliseconds: number;
    }
  | { readonly type: 'releaseVfs' }
  | { readonly type: 'destroyVfs' }
  | {
      readonly type: 'startTimer';
      readonly event: TimerEvent;
      readonly generation: number;
      readonly milliseconds: number;
    }
  | { readonly type: 'report'; readonly level: 'info' | 'warn' | 'error'; readonly text: string };

/** How long the machine waits for whom, in milliseconds. */
export interface Limits {
  readonly totalVfs: number;
  readonly plugMilliseconds: number;
  readonly unplugMilliseconds: number;
  readonly retryMilliseconds: number;
}

export interface Step {
  readonly state: State;
  readonly effects: readonly Effect[];
}

export const INITIAL: State = { phase: 'disabled', lastGeneration: 0 };

/** The states of some phases. */
export type In<P extends Phase> = Extract<State, { phase: P }>;
