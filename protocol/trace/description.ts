// What a trace says of the device that it was taken of, so that it can be read anywhere: the config spaces to name
// accesses by, the registers of the BARs as the device declares them, what was mapped and so unseen.

/** A register as backend/pci/registers.ts declares it. */
export interface TracedRegister {
  readonly offset: number;
  readonly bytes: 1 | 2 | 4;
  readonly rw: number;
  readonly rw1c: number;
  readonly fields: Readonly<
    Record<
      string,
      { readonly high: number; readonly low: number; readonly access: 'ro' | 'rw' | 'rw1c' }
    >
  >;
}

/** Registers of one BAR, from `offset` in it on. */
export interface TracedTable {
  readonly region: number;
  readonly title: string;
  readonly offset: number;
  readonly table: Readonly<Record<string, TracedRegister>>;
  /** What registers are called where their names in the table don't say it. */
  readonly names?: Readonly<Record<string, string>>;
}

export interface TracedFunction {
  /** Config space as the guest finds it, base64. */
  readonly config: string;
  readonly regions: readonly { readonly index: number; readonly size: number }[];
  /** Regions of which a part may be mapped. */
  readonly mappable: readonly number[];
  readonly tables: readonly TracedTable[];
}

export interface TraceDescription {
  /** What a person calls it: `0000:01:00.0`, `loopback`. */
  readonly device: string;
  readonly totalVfs: number;
  /** Recorded from the backend's start on: what `vf` says of config space held at the first event. */
  readonly isFromStart: boolean;
  readonly pf: TracedFunction;
  readonly vf: TracedFunction;
}
