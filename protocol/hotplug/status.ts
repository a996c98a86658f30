// What GetStatus answers, as JSON: the device's state as seen by the backend at that moment (README.md, 5.6).

/** Where the SR-IOV machine of a backend stands. */
export type SriovPhase =
  | 'disabled'
  | 'creating'
  | 'plugging'
  | 'enabled'
  | 'unplugging'
  | 'releasing'
  | 'quarantined'
  | 'destroying';

export interface FunctionStatus {
  /** A VMM is connected to it. */
  readonly attached: boolean;
  readonly messages: number;
  /** Raised by the backend; a real device's interrupts do not pass through it. */
  readonly interrupts: number;
  readonly dmaWindows: number;
  /** Guest memory that the device cannot reach, and why: one sentence each. */
  readonly failedMaps: readonly string[];
}

export interface VfStatus extends FunctionStatus {
  readonly index: number;
  /** Of the enable that brought it up; 0 where none has. */
  readonly generation: number;
  readonly state: 'absent' | 'coming-up' | 'up';
  /** Who has it: `guest` through a slot, `vmm` natively, or who does not let go of it. */
  readonly holder: string | null;
  /** Whether the VM maps its BARs, by what, or why not; null while it is not up. Absent from older servers. */
  readonly memory?: string | null;
}

/** A trace of the device. */
export interface TraceState {
  readonly on: boolean;
  /** Records so far; of the last one, where none is being made. */
  readonly records: number;
  /** Of those records, also of those that the ring holds no more. Absent from older servers. */
  readonly bytes?: number;
  /** The ring went around: what came first is gone. Absent from older servers. */
  readonly isWrapped?: boolean;
  /** The file, by its name on the server's host; null where it has none. Absent from older servers. */
  readonly path?: string | null;
  /** Why the last one ended by itself. */
  readonly failure: string | null;
}

/** A fault that is armed. */
export interface FaultStatus {
  readonly id: number;
  /** As it was written. */
  readonly rule: string;
  readonly fired: number;
}

/** What Faults asks for: one of them, or only the list. */
export interface FaultsRequest {
  readonly add?: string;
  /** An ID; 0 stands for all. */
  readonly clear?: number;
}

/** What Faults answers: why nothing changed, if so, and what is armed then. */
export interface FaultsAnswer {
  readonly refusal: {
    /** The character of the rule that is at fault, from 0; null where it is not about one. */
    readonly position: number | null;
    readonly what: string;
    readonly fix: string;
  } | null;
  readonly faults: readonly FaultStatus[];
}

export interface DeviceStatus {
  readonly version: 1;
  /** The PF's address on the host, or what stands in for a PF. */
  readonly device: string;
  readonly phase: SriovPhase;
  /** Why the guest's last enable has no VFs; null from the next enable on. */
  readonly failure: string | null;
  readonly numVfs: number;
  readonly totalVfs: number;
  readonly vfEnable: boolean;
  /** Of the last enable; 0 before the first. */
  readonly generation: number;
  /** The role of whoever plugs VFs into the VM. */
  readonly hotplug: 'vmm' | 'glue' | null;
  readonly pf: FunctionStatus;
  readonly clients: readonly { function: string; role: string; messages: number }[];
  readonly vfs: readonly VfStatus[];
  readonly quarantine: readonly { vfIndex: number; holder: string }[];
  /** Absent where the server cannot record. */
  readonly trace?: TraceState;
  /** The faults that are armed. Absent where the server knows of none. */
  readonly faults?: readonly FaultStatus[];
}
