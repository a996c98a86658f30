// What goes wrong with a device on purpose, as the functions of the device ask for it. backend/faults arms the rules and
// counts; where nothing is armed the answers are NO_FAULTS'.

/** The faults there are, as rules name them; backend/faults/spec.ts says what each takes. */
export type FaultName =
  | 'vf-enable:fail'
  | 'vf-enable:delay'
  | 'vf:absent'
  | 'flr:hang'
  | 'flr:delay'
  | 'config-read:all-ones'
  | 'dma:error'
  | 'msix:lost'
  | 'msix:spurious'
  | 'aer:correctable'
  | 'aer:nonfatal'
  | 'aer:fatal'
  | 'surprise-removal'
  | 'nvme:status'
  | 'nvme:drop'
  | 'nvme:csts-cfs';

/** A moment at which a fault may fire: with which function (`pf`, `vf0`, …), and over what. */
export interface Occasion {
  readonly function: string;
  /** Of interrupts. */
  readonly vector?: number;
  /** Of an NVMe command. */
  readonly opcode?: number;
  readonly isAdmin?: boolean;
}

/** A fault that fires; `value` is what its rule says after the `=`: milliseconds, or an NVMe status. */
export interface FiredFault {
  readonly rule: string;
  readonly value: number;
}

export interface Faults {
  /** The fault, if one fires at this occasion, which is counted. */
  fires(name: FaultName, occasion: Occasion): FiredFault | undefined;
  /** Whether a fault that lasts has fired for the function. */
  lasts(name: FaultName, occasion: Occasion): boolean;
  /** Whether the hardware is to be kept from a vector that it would signal by itself. */
  withholds(occasion: Occasion): boolean;
  /** Has a function level reset go on: at once, later, or not before the fault is cleared or the VMM resets the function. */
  delayReset(occasion: Occasion, goOn: () => void): void;
  /** The VMM resets the function: what hangs in it is over. */
  deviceReset(name: string): void;
}

/** Of a device with which nothing goes wrong. */
export const NO_FAULTS: Faults = {
  fires: () => undefined,
  lasts: () => false,
  withholds: () => false,
  delayReset: (_occasion, goOn) => goOn(),
  deviceReset: () => {},
};
