// Errors of a function that did not happen in the hardware: status bits laid over its AER capability and its Device Status,
// until somebody clears them, as software clears them: by writing ones. PCIe Base 4.0, "Advanced Error Reporting".

import { findCapability, findExtendedCapability } from '../pci/capability-chain.ts';
import { maskOf } from '../pci/registers.ts';
import { AER } from '../pci/spec/aer.ts';
import { CapabilityId, ExtendedCapabilityId } from '../pci/spec/capability-ids.ts';
import { PCI_EXPRESS } from '../pci/spec/pcie.ts';

export type ErrorSeverity = 'correctable' | 'nonfatal' | 'fatal';

/** One error of each severity, as the severity register has it after a reset. */
const AER_BITS = {
  correctable: {
    register: AER.correctableErrorStatus,
    mask: maskOf(AER.correctableErrorStatus, 'receiverError'),
  },
  nonfatal: {
    register: AER.uncorrectableErrorStatus,
    mask: maskOf(AER.uncorrectableErrorStatus, 'completionTimeout'),
  },
  fatal: {
    register: AER.uncorrectableErrorStatus,
    mask: maskOf(AER.uncorrectableErrorStatus, 'malformedTlp'),
  },
} as const;

const DEVICE_STATUS_BITS = {
  correctable: maskOf(PCI_EXPRESS.deviceStatus, 'correctableErrorDetected'),
  nonfatal: maskOf(PCI_EXPRESS.deviceStatus, 'nonFatalErrorDetected'),
  fatal: maskOf(PCI_EXPRESS.deviceStatus, 'fatalErrorDetected'),
} as const;

export class ErrorStatus {
  readonly #aer: number;
  readonly #pciExpress: number | undefined;
  /** Bits that are set, by byte of config space. */
  readonly #bytes = new Map<number, number>();

  /** Undefined where the function has no AER capability. */
  static of(config: Uint8Array): ErrorStatus | undefined {
    const aer = findExtendedCapability(config, ExtendedCapabilityId.advancedErrorReporting);
    const pciExpress = findCapability(config, CapabilityId.pciExpress);
    return aer && new ErrorStatus(aer.offset, pciExpress?.offset);
  }

  private constructor(aer: number, pciExpress: number | undefined) {
    this.#aer = aer;
    this.#pciExpress = pciExpress;
  }

  happened(severity: ErrorSeverity): void {
    const { register, mask } = AER_BITS[severity];
    this.#set(this.#aer + register.offset, mask);
    if (this.#pciExpress !== undefined) {
      this.#set(this.#pciExpress + PCI_EXPRESS.deviceStatus.offset, DEVICE_STATUS_BITS[severity]);
    }
  }

  /** Lays the bits over what was read of config space. */
  show(offset: number, into: Uint8Array): void {
    for (const [at, bits] of this.#bytes) {
      if (at >= offset && at < offset + into.length) {
        into[at - offset]! |= bits;
      }
    }
  }

  /** Takes the bits away that a write clears. */
  written(offset: number, from: Uint8Array): void {
    for (const [at, bits] of this.#bytes) {
      if (at >= offset && at < offset + from.length) {
        this.#keep(at, bits & ~from[at - offset]!);
      }
    }
  }

  clear(): void {
    this.#bytes.clear();
  }

  #set(offset: number, mask: number): void {
    for (let at = offset, left = mask; left !== 0; at++, left >>>= 8) {
      this.#keep(at, (this.#bytes.get(at) ?? 0) | (left & 0xff));
    }
  }

  #keep(at: number, bits: number): void {
    if (bits === 0) {
      this.#bytes.delete(at);
    } else {
      this.#bytes.set(at, bits);
    }
  }
}
