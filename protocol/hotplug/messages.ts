// Bodies of the hot-plug extension, as values; codec.ts takes them to and from the wire. README.md beside this file says what
// they mean.

/** The guest has set VF Enable. */
export interface EnableBegin {
  /** 1 for a server's first enable, and one more for each later one. */
  generation: number;
  numVfs: number;
  /** No VF will be up sooner, counted from this message. */
  readyAfterMilliseconds?: number | undefined;
  /** Slot mode: as far as the server knows, every slot is placed and answers. Read as false when it is not there. */
  placed?: boolean | undefined;
}

/** One BAR of a VF, in memory space. */
export interface VfBar {
  index: number;
  /** Bytes, a power of two from 16. */
  size: bigint;
  is64Bit: boolean;
  prefetchable: boolean;
  /** Guest address that the SR-IOV capability gives this VF's BAR, modulo the BAR's width; 0 = not placed. */
  address: bigint;
}

/** `size` bytes of the VF's BAR `vfBar`, from `offset` on: the whole BAR `index` of its carrier, a 64-bit one. */
export interface CarrierBar {
  index: number;
  vfBar: number;
  offset: bigint;
  /** A power of two of at least a page; `offset` is a multiple of it. */
  size: bigint;
}

/** A function whose BARs are what may be mapped of a VF, for a VMM that has the VF in a slot. */
export interface Carrier {
  /** Where its vfio-user session is served. */
  socketPath: string;
  bars: CarrierBar[];
}

/** One VF is up; to a glue: is, or will be, there. */
export interface VfPlug {
  vfIndex: number;
  generation: number;
  /** Routing ID of the VF minus that of the PF, modulo 65536; never 0. */
  routingIdOffset: number;
  vendorId: number;
  deviceId: number;
  bars: VfBar[];
  msixVectors: number;
  /** Where the VF's session is served when no fd can be carried. */
  socketPath?: string | undefined;
  /** Slot mode: the VM's function was reset since it was last placed. Read as false when it is not there. */
  placementLost?: boolean | undefined;
  /** Slot mode: Command of the slot, as the VMM has it. Read as 0 when it is not there. */
  slotCommand?: number | undefined;
  /** Slot mode: absent where nothing of the VF can be mapped. */
  carrier?: Carrier | undefined;
}

/** What a glue needs of it. */
export type VfPlacement = Pick<
  VfPlug,
  'routingIdOffset' | 'bars' | 'placementLost' | 'slotCommand'
>;

/** A slot whose VF is off, and where it belongs. */
export interface Slot extends VfPlacement {
  vfIndex: number;
}

/** Which slots a glue asks for. */
export interface GetSlots {
  firstVf: number;
  /** At most so many are wanted; 1 to MAX_SLOTS. */
  count: number;
}

/** More in one message are refused. */
export const MAX_SLOTS = 64;

/** 'unspecified' stands for every reason that this version does not know. */
export type UnplugReason = 'guestDisabled' | 'pfReset' | 'vfLost' | 'shuttingDown' | 'unspecified';

/** One VF goes. */
export interface VfUnplug {
  vfIndex: number;
  generation: number;
  deadlineMilliseconds: number;
  reason: UnplugReason;
}

/** The enable is over. */
export interface EnableEnd {
  generation: number;
  outcome: 'enabled' | 'failed';
  /** Why it failed, for people. */
  text: string;
}

/** The guest has written VF Memory Space Enable while it has VFs, or had the VMM map or unmap slots of theirs. */
export interface VfMemorySpace {
  /** Of the enable that the VFs are of. */
  generation: number;
  enabled: boolean;
  /** VFs whose slots do not answer in memory, by their own Command or Power State; by index, ascending. */
  silentVfs: readonly number[];
}

/** A glue maps nothing of the VFs, or of some of them. */
export interface VfsTrapped {
  /** Of the enable that the VFs are of. */
  generation: number;
  /** From this VF on; 0: of all of them. */
  firstVf: number;
  /** Why, for people. */
  text: string;
}

/** The reply to EnableBegin (vfIndex 0), VfPlug, VfUnplug and VfMemorySpace (vfIndex 0). */
export interface HotplugReply {
  vfIndex: number;
  generation: number;
  result: 'done' | 'refused';
  /** Linux errno of a refusal, else 0. A refusal without one reads as EIO. */
  errno: number;
  text: string;
}

/** What a glue did in its VMM; times are nanoseconds of CLOCK_MONOTONIC. */
export interface GlueEvent {
  /** `stop` and `cont` of the guest, `command` for everything else. */
  what: string;
  text: string;
  at: bigint;
  took: bigint;
}

export interface GlueEvents {
  events: GlueEvent[];
  /** Events that there were before these, and that are not told. */
  lost: number;
}

/** More in one message are refused. */
export const MAX_GLUE_EVENTS = 1024;
