// What goes wrong on purpose with one function: at which moments of its life the port (faults.ts) is asked, and what the
// guest, the device and the client see of the answer.

import { IrqIndex } from '../../protocol/vfio-user/commands.ts';
import { type ErrorSeverity, ErrorStatus } from './error-status.ts';
import type { FaultName, Faults, Occasion } from './faults.ts';
import type { Interrupts } from './interrupts.ts';

/** What of the function decides. */
export interface FaultyView {
  /** The guest finds a function here, so that it can be faulty. */
  isThere(): boolean;
  /** It never came up, though it should have. */
  isAbsent(): boolean;
  /** Its VMM is one that stops the VM at an error. */
  isSlot(): boolean;
}

export interface FunctionFaultsOptions {
  readonly name: string;
  readonly config: Uint8Array;
  readonly faults: Faults;
  readonly interrupts: Interrupts;
  readonly view: FaultyView;
}

/** Interrupts by message, in the order in which a client binds them. */
const MESSAGES: readonly number[] = [IrqIndex.msix, IrqIndex.msi];
const ERRORS: readonly (readonly [FaultName, ErrorSeverity])[] = [
  ['aer:correctable', 'correctable'],
  ['aer:nonfatal', 'nonfatal'],
  ['aer:fatal', 'fatal'],
];

export class FunctionFaults {
  readonly #faults: Faults;
  readonly #occasion: Occasion;
  readonly #errors: ErrorStatus | undefined;
  readonly #interrupts: Interrupts;
  readonly #view: FaultyView;

  constructor({ name, config, faults, interrupts, view }: FunctionFaultsOptions) {
    this.#faults = faults;
    this.#occasion = { function: name };
    this.#errors = ErrorStatus.of(config);
    this.#interrupts = interrupts;
    this.#view = view;
  }

  /** Whether the VF that comes up is to be absent for as long as it lives. */
  makesAbsent(): boolean {
    return this.#fires('vf:absent');
  }

  /** At an access of the guest's: nobody may be there. */
  isGone(): boolean {
    return this.#view.isThere() && (this.#view.isAbsent() || this.#fires('surprise-removal'));
  }

  /** Nobody is there, and not by the access at hand. */
  get isGoneForGood(): boolean {
    return this.#view.isAbsent() || this.#faults.lasts('surprise-removal', this.#occasion);
  }

  /** What a guest reads of config space when something is wrong with the function. */
  spoilConfig(offset: number, into: Uint8Array): void {
    if (!this.#view.isThere()) {
      return;
    }
    if (this.#errors !== undefined) {
      this.#meetErrors(this.#errors);
      this.#errors.show(offset, into);
    }
    if (this.#fires('config-read:all-ones')) {
      into.fill(0xff);
    }
  }

  configWritten(offset: number, from: Uint8Array): void {
    this.#errors?.written(offset, from);
  }

  failsDma(): boolean {
    return this.isGoneForGood || this.#fires('dma:error');
  }

  /** Whether an interrupt that the device raises gets lost on its way to the client, who would hear it. */
  loses(index: number, vector: number): boolean {
    return (
      MESSAGES.includes(index) &&
      this.#interrupts.isBound(index, vector) &&
      (this.isGoneForGood || this.#faults.fires('msix:lost', this.#about(vector)) !== undefined)
    );
  }

  /** Whether the hardware is to be kept from a vector. */
  withholds(index: number, vector: number): boolean {
    return MESSAGES.includes(index) && this.#faults.withholds(this.#about(vector));
  }

  /** Whether an interrupt by message would be heard. */
  hears(vector: number): boolean {
    return this.#boundMessage(vector) !== undefined;
  }

  /** An interrupt that the device did not raise. */
  raiseSpurious(vector: number): void {
    const index = this.#boundMessage(vector);
    if (index !== undefined) {
      this.#interrupts.raise(index, vector);
    }
  }

  /** Has a function level reset go on when it is to. */
  delayReset(goOn: () => void): void {
    this.#faults.delayReset(this.#occasion, goOn);
  }

  /** The VMM has reset the function. */
  deviceReset(): void {
    this.#errors?.clear();
    this.#faults.deviceReset(this.#occasion.function);
  }

  #fires(name: FaultName): boolean {
    return this.#faults.fires(name, this.#occasion) !== undefined;
  }

  /** Asked for at each interrupt: by a spread V8 would make a shape of each, which outlives it and is work for collections. */
  #about(vector: number): Occasion {
    return { function: this.#occasion.function, vector };
  }

  #boundMessage(vector: number): number | undefined {
    return MESSAGES.find((index) => this.#interrupts.isBound(index, vector));
  }

  #meetErrors(errors: ErrorStatus): void {
    for (const [name, severity] of ERRORS) {
      if (this.#fires(name)) {
        errors.happened(severity);
        // QEMU stops the VM at it.
        if (severity !== 'correctable' && !this.#view.isSlot()) {
          this.#interrupts.raise(IrqIndex.err, 0);
        }
      }
    }
  }
}
