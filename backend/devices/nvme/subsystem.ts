// What the controllers of one device have in common: the subsystem's name, their namespaces, and how queue and interrupt
// resources are dealt out among VFs. NVM Express 1.4, "Virtualization Enhancements".

import { Status } from './spec/status.ts';
import type { Storage } from './storage.ts';

/** CNTLID of the primary controller; a VF's follows from its index. */
export const PRIMARY_ID = 0;

export function controllerIdOf(vfIndex: number): number {
  return vfIndex + 1;
}

/**
 * Queue pairs, the admin queue among them, and vectors: of the primary its own and the most flexible ones that it may have beside
 * them; the most that a VF may get.
 */
export const Resources = {
  primaryPrivate: 8,
  mostFlexibleOfPrimary: 9,
  mostPerSecondary: 9,
  leastQueues: 2,
  leastInterrupts: 1,
};

/** RT of Virtualization Management. */
export const ResourceType = { queues: 0, interrupts: 1 } as const;

/** ACT of Virtualization Management. */
export const VirtualizationAction = {
  allocateToPrimary: 1,
  offline: 7,
  assign: 8,
  online: 9,
} as const;

/** What a secondary controller does when its state changes: it exists while its VF does. */
export interface SecondaryController {
  setOnline(isOnline: boolean): void;
}

/** Flexible resources that one controller has. */
interface Allocation {
  queues: number;
  interrupts: number;
}

const EVERYTHING_OF_PRIMARY: Readonly<Allocation> = {
  queues: Resources.mostFlexibleOfPrimary,
  interrupts: Resources.mostFlexibleOfPrimary,
};

/** One VF's entry in the list of secondary controllers. */
export interface Secondary extends Allocation {
  isOnline: boolean;
  controller: SecondaryController | undefined;
}

export interface SubsystemOptions {
  readonly totalVfs: number;
  /** VFs come up with all they may have (online), or as SSDs do: with nothing, until the primary deals it out. */
  readonly vfs: 'online' | 'offline';
  readonly serialNumber: string;
  /** 16 bytes: names the subsystem, and with a controller's ID each namespace. */
  readonly uuid: Uint8Array;
  /** Those of config space; the device's own unless a profile says otherwise. */
  readonly vendorIds?: { readonly vendorId: number; readonly subsystemVendorId: number };
}

export class Subsystem {
  readonly options: SubsystemOptions;
  readonly secondaries: readonly Secondary[];
  /** Flexible resources that the primary has. */
  primary: Readonly<Allocation> = EVERYTHING_OF_PRIMARY;
  /** Those that it has from its next reset on. */
  readonly #nextPrimary: Allocation = { ...EVERYTHING_OF_PRIMARY };
  readonly #storageOf: (index: number) => Storage;

  /** `storageOf`: the namespace of the PF (PF_INDEX) or of a VF. */
  constructor(options: SubsystemOptions, storageOf: (index: number) => Storage) {
    this.options = options;
    this.#storageOf = storageOf;
    this.secondaries = Array.from({ length: options.totalVfs }, () => ({
      ...this.#initial,
      isOnline: false,
      controller: undefined,
    }));
  }

  /** What a VF has when it comes up. */
  get #initial(): Allocation {
    const each = this.options.vfs === 'online' ? Resources.mostPerSecondary : 0;
    return { queues: each, interrupts: each };
  }

  storageOf(index: number): Storage {
    return this.#storageOf(index);
  }

  /** Of each type: as many as the primary and all VFs may have. */
  get flexible(): number {
    return Resources.mostFlexibleOfPrimary + this.options.totalVfs * Resources.mostPerSecondary;
  }

  /** Of the primary's queue pairs or vectors: all that it has. */
  ofPrimary(type: keyof Allocation): number {
    return Resources.primaryPrivate + this.primary[type];
  }

  /** Its function was reset, or the device: by CC.EN alone it keeps what it has. */
  primaryWasReset(): void {
    this.primary = { ...this.#nextPrimary };
  }

  /** By CC.EN or a reset: who has dealt resources out has to do it again. VFs that came up with all they may have need nobody. */
  primaryWasDisabled(): void {
    if (this.options.vfs === 'offline') {
      for (const secondary of this.secondaries) {
        this.#takeOffline(secondary);
      }
    }
  }

  /** To VFs. */
  assigned(type: keyof Allocation): number {
    return this.secondaries.reduce((sum, secondary) => sum + secondary[type], 0);
  }

  /** A VF is there; whether its controller is online. */
  attach(vfIndex: number, controller: SecondaryController): boolean {
    const secondary = this.secondaries[vfIndex]!;
    secondary.controller = controller;
    secondary.isOnline = this.options.vfs === 'online';
    return secondary.isOnline;
  }

  detach(vfIndex: number): void {
    const secondary = this.secondaries[vfIndex]!;
    secondary.controller = undefined;
    secondary.isOnline = false;
    Object.assign(secondary, this.#initial);
  }

  /** Virtualization Management: the status, and how many resources were modified (NRM). */
  manage(
    action: number,
    type: number,
    controllerId: number,
    count: number,
  ): { status: Status; modified: number } {
    const refused = (status: Status) => ({ status, modified: 0 });
    if (action === VirtualizationAction.allocateToPrimary) {
      return controllerId === PRIMARY_ID
        ? deal(this.#nextPrimary, type, count, Resources.mostFlexibleOfPrimary)
        : refused(Status.invalidControllerIdentifier);
    }
    const secondary = this.secondaries[controllerId - 1];
    if (secondary === undefined) {
      return refused(Status.invalidControllerIdentifier);
    }
    switch (action) {
      case VirtualizationAction.assign:
        return secondary.isOnline
          ? refused(Status.invalidSecondaryControllerState)
          : deal(secondary, type, count, Resources.mostPerSecondary);
      case VirtualizationAction.offline:
        this.#takeOffline(secondary);
        return { status: Status.success, modified: 0 };
      case VirtualizationAction.online:
        if (!canBeOnline(secondary)) {
          return refused(Status.invalidSecondaryControllerState);
        }
        this.#setOnline(secondary, true);
        return { status: Status.success, modified: 0 };
      default:
        return refused(Status.invalidField);
    }
  }

  #takeOffline(secondary: Secondary): void {
    this.#setOnline(secondary, false);
    Object.assign(secondary, { queues: 0, interrupts: 0 });
  }

  #setOnline(secondary: Secondary, isOnline: boolean): void {
    if (secondary.isOnline !== isOnline) {
      secondary.isOnline = isOnline;
      secondary.controller?.setOnline(isOnline);
    }
  }
}

const RESOURCE_NAMES: readonly (keyof Allocation | undefined)[] = ['queues', 'interrupts'];

/** There are enough for all to have the most. */
function deal(
  to: Allocation,
  type: number,
  count: number,
  most: number,
): { status: Status; modified: number } {
  const name = RESOURCE_NAMES[type];
  if (name === undefined) {
    return { status: Status.invalidResourceIdentifier, modified: 0 };
  }
  if (count > most) {
    return { status: Status.invalidResourceCount, modified: 0 };
  }
  to[name] = count;
  return { status: Status.success, modified: count };
}

function canBeOnline({ queues, interrupts, controller }: Secondary): boolean {
  return (
    controller !== undefined &&
    queues >= Resources.leastQueues &&
    interrupts >= Resources.leastInterrupts
  );
}
