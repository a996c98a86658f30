// What the choreography of enables and disables needs of a VMM: a guest that can be made to stand still, and somebody who
// gives it the VFs of each backend. `qemu/` is one, over QMP. Whoever has another way of plugging VFs (memory laid over
// slots, whole functions, a VMM that maps by itself) brings another VfPlugger; the choreography's callers never see it.
import type { Slot, VfMemorySpace, VfPlug } from '../../protocol/hotplug/messages.ts';
import type { GuestPause } from './guest-pause.ts';

/** The guest's CPUs, and what is borrowed of the guest while they stand still. */
export interface GuestControl {
  /** Commands reach the VMM now. */
  readonly isConnected: boolean;
  /** The guest's CPUs run, as far as the VMM has told. */
  readonly isRunning: boolean;
  /** Commands answered so far; for measurements. */
  readonly commandCount: number;
  /** How long the CPUs stood still the last time, by the VMM's own account; 0 where it gave none. */
  readonly standstillMilliseconds: number;

  /** @throws where the VMM is out of reach */
  checkConnected(): void;
  /**
   * Asks for the stop before it returns; resolves when the CPUs stand still, with whether that is our doing: false where
   * somebody else had stopped them. Where it rejects, they may stop later. `writes`: something is to be written meanwhile; what that
   * needs to know is asked for in one go.
   */
  stop({ writes }: { writes: boolean }): Promise<boolean>;
  /** Whether an error of `stop` makes certain that the guest runs on. */
  isRefusal(error: unknown): boolean;
  /** The guest stands still, and nobody waits: time to look at what the first write will change. */
  prepareWrites(): Promise<void>;
  /** Puts back what was borrowed of the guest. Rejects where that failed. */
  giveBack(): Promise<void>;
  /** Lets the CPUs run. */
  resume(): Promise<void>;
  /** Of what an earlier glue had done when it was ended: whether it had stopped this guest. */
  inherit(): boolean;
  /** Nothing of this guest counts as stopped or borrowed by us any more. */
  forget(): void;
}

/** Nothing is mapped of the VFs from `firstVf` on; `text` says why, for people. */
export type TellTrapped = (firstVf: number, text: string) => void;

/** Where slots of VFs that are off belong just now, from the VF `firstVf` on; rejects where the backend has gone. */
export type AskForSlots = (firstVf: number, count: number) => Promise<readonly Slot[]>;

/** What answers of the VFs' memory. */
export type MemorySpace = Pick<VfMemorySpace, 'enabled' | 'silentVfs'>;

/** Brings the VFs of one backend into the guest, and out again. */
export interface VfPlugger {
  /** The guest is to be paused for an enable: what costs time can begin, within the pause. */
  prepare(): void;
  /**
   * Puts a VF where the guest expects it, within a pause; gives the commands that took. `begin` is called when its turn
   * comes, and throws where it has become pointless. Rejects then, and where the VMM cannot do it.
   */
  plug(vf: VfPlug, begin: () => void): Promise<number>;
  /** Plugs a VF that is where the guest expects it already, without a pause; false: it takes `plug`, and nothing was done. */
  plugAtOnce(vf: VfPlug): boolean;
  /**
   * Puts slots of VFs that are off where the guest will expect them, in short pauses; `ask` tells where that is, and none where it has
   * become pointless. Rejects where the VMM cannot do it.
   */
  placeAhead(ask: AskForSlots): Promise<void>;
  /** The VFs of an enable are up and the guest runs on. */
  enabled(): void;
  /** Resolves when the VMM holds nothing of the VF any more. */
  unplug(vfIndex: number): Promise<void>;
  /** The guest has switched memory of its VFs on or off; resolves when nothing of it is mapped where all of it is off. */
  memorySpace(space: MemorySpace): Promise<void>;
  /** The backend has gone, or goes on without us; resolves when the VMM holds nothing of its VFs any more. */
  detached(): Promise<void>;
}

export interface VmmControl {
  readonly guest: GuestControl;
  /**
   * The plugger of the backend that is `index`th in order; it pauses the guest by `pause` alone, and says why nothing is mapped
   * of VFs that are up.
   */
  pluggerOf(index: number, pause: GuestPause, trapped: TellTrapped): VfPlugger;
}
