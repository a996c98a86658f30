// Features that Get and Set Features know. NVM Express 1.4, "Set Features command", "Feature Identifiers".

export const FeatureId = {
  arbitration: 0x01,
  powerManagement: 0x02,
  temperatureThreshold: 0x04,
  errorRecovery: 0x05,
  volatileWriteCache: 0x06,
  numberOfQueues: 0x07,
  interruptCoalescing: 0x08,
  interruptVectorConfiguration: 0x09,
  writeAtomicity: 0x0a,
  asynchronousEventConfiguration: 0x0b,
} as const;

/**
 * `writable`: bits of Dword 11 that are kept; `index`: bits of Dword 11 that choose one of several values, of which
 * `initial` is the first one's, and that of the others unless they have one; `isOfNamespace`: set and told of by a namespace's
 * identifier.
 */
export interface FeatureRule {
  readonly initial: number;
  readonly initialOfOthers?: number;
  readonly writable: number;
  readonly index: number;
  readonly isOfNamespace?: boolean;
}

/** Everything but Number of Queues, whose answer is the controller's. */
export const FEATURES: ReadonlyMap<number, FeatureRule> = new Map<number, FeatureRule>([
  [FeatureId.arbitration, { initial: 7, writable: 0xffff_ff07, index: 0 }],
  [FeatureId.powerManagement, { initial: 0, writable: 0xe0, index: 0 }],
  [
    FeatureId.temperatureThreshold,
    { initial: 343, initialOfOthers: 0, writable: 0xffff, index: 0x003f_0000 },
  ],
  [FeatureId.errorRecovery, { initial: 0, writable: 0xffff, index: 0, isOfNamespace: true }],
  [FeatureId.volatileWriteCache, { initial: 1, writable: 1, index: 0 }],
  [FeatureId.interruptCoalescing, { initial: 0, writable: 0xffff, index: 0 }],
  [FeatureId.interruptVectorConfiguration, { initial: 0, writable: 0x1_0000, index: 0xffff }],
  [FeatureId.writeAtomicity, { initial: 0, writable: 1, index: 0 }],
  [FeatureId.asynchronousEventConfiguration, { initial: 0, writable: 0x7ff, index: 0 }],
]);

/** TMPSEL and THSEL of Temperature Threshold: whose temperature, and whether too high or too low. Others are reserved, or sensors. */
export const TemperatureSelect = { composite: 0x0, all: 0xf, over: 0, under: 1 } as const;

/** SEL of Get Features. */
export const FeatureSelect = { current: 0, initial: 1, saved: 2, capabilities: 3 } as const;

/** What SEL 3 answers: bit 1, a namespace's own; bit 2, changeable. Nothing is saved. */
export const OF_NAMESPACE = 0x2;
export const CHANGEABLE = 0x4;
