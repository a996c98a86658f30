// What goes wrong with a device on purpose, as the functions of the device ask for it. backend/faults arms the rules and
// counts; where nothing is armed the answers are NO_FAULTS'.

/** The faults that every kind of device has, as rules name them; backend/faults/spec.ts says what each takes. */
export type CommonFault =
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
  | 'surprise-removal';

/** One of those, or one that the kind of device has for itself, which begins with the kind's name and a colon. */
export type FaultName = CommonFault | `${string}:${string}`;

/** How a value is written; gives undefined for a text that is none. */
export interface ValueKind {
  /** What to write, for a person. */
  readonly rule: string;
  parse(text: string): number | undefined;
}

/** A condition of rules. */
export interface ConditionKind extends ValueKind {
  /** Of a kind's own: whether an occasion of which it `is` is meant; `wanted`: what the rule says, if anything. */
  concerns?(wanted: number | undefined, is: number): boolean;
}

/** What a rule of a fault may and must say. */
export interface FaultSpec {
  /** Before the colon, as in `vf=2:absent`. */
  readonly subject?: ValueKind;
  /** After the fault's name; with a default it may be left out. */
  readonly value?: ValueKind;
  readonly defaultValue?: number;
  /** Names of conditions that rules may have. */
  readonly conditions: readonly string[];
  /** How often it fires unless the rule says so. */
  readonly times?: number;
  /** Once it has fired it goes on, until it is cleared. */
  readonly isLasting?: boolean;
  /** Why a physical function of the host cannot have it. */
  readonly notOfHardware?: string;
}

/** What can be said in rules: the faults by name, and the conditions. */
export interface FaultLanguage {
  readonly faults: Readonly<Record<string, FaultSpec>>;
  readonly conditions: Readonly<Record<string, ConditionKind>>;
}

/** The conditions of what happens time and again, and of what happens with one function. */
export const COUNTS = ['after', 'every', 'times'] as const;
export const OF_FUNCTION = [...COUNTS, 'function'] as const;

/** A moment at which a fault may fire: with which function (`pf`, `vf0`, …), and over what. */
export interface Occasion {
  readonly function: string;
  /** Of interrupts. */
  readonly vector?: number;
  /** What conditions of the kind's own look at, by their names. */
  readonly own?: Readonly<Record<string, number>>;
}

/** A fault that fires; `value` is what its rule says after the `=`: milliseconds, or what the kind's fault takes. */
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
