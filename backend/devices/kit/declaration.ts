// How a device in RAM is declared: what its functions look like, as data, and what each does, as a few callbacks.
// `defineDevice` is what a card of one's own exports; the kinds of device of this project are declared alike.

import type { Timer } from '../../../protocol/clock.ts';
import { PAGE_BYTES } from '../../../protocol/page.ts';
import type { BarShape } from '../../pci/bars.ts';
import type { Change, RegisterBlock } from '../../pci/register-block.ts';
import type { RegisterName, RegisterTable } from '../../pci/registers.ts';
import type { GuestMemory } from './guest-memory.ts';

/** What traces call registers: `title` and a name. Without a name of its own `mailboxSend` is "Mailbox Send". */
export interface RegisterLabels {
  readonly title?: string;
  readonly names?: Readonly<Record<string, string>>;
}

/** A stretch of a BAR; `at` and `size` in bytes. Bytes that no part claims read 0 and ignore writes. */
export type BarPart =
  /** Memory pages, which a VMM may map: multiples of 4096. */
  | { readonly kind: 'ram'; readonly at: number; readonly size: number }
  /** Registers, in the register language; `FunctionPort.block` gives the block behind them. */
  | {
      readonly kind: 'registers';
      readonly at: number;
      readonly size: number;
      readonly table: RegisterTable;
      readonly reset: Readonly<Record<string, number>>;
      readonly labels: RegisterLabels;
    }
  /** Accesses that the model answers by itself; `table` is for traces alone: what registers there are called. */
  | {
      readonly kind: 'trapped';
      readonly at: number;
      readonly size: number;
      readonly table?: RegisterTable;
      readonly labels?: RegisterLabels;
    }
  /** MSI-X table and pending bits. A VMM mostly keeps its own and never looks here. */
  | { readonly kind: 'msix'; readonly at: number; readonly pendingAt: number };

/** A BAR: its shape and what is in it. */
export interface BarDeclaration extends BarShape {
  readonly parts: readonly BarPart[];
}

/** A register that was written; `whole`: by one access, so that a doorbell can ignore pieces of a write. */
export interface RegisterWrite<T extends RegisterTable> extends Change<T> {
  readonly whole: boolean;
}

/** What happens around accesses to a block of registers. */
export interface BlockEvents<T extends RegisterTable> {
  written?(write: RegisterWrite<T>): void;
  /** The guest is about to read it: the last moment to set it. */
  reading?(register: RegisterName<T>): void;
}

/** A function from the inside: what its model may ask for. Once the function has gone, nothing comes of it. */
export interface FunctionPort {
  /** -1 is the PF, 0 and more are VFs. */
  readonly index: number;
  /** The enable that brought this VF up, counted from 1; 0 for the PF. */
  readonly generation: number;
  /** Guest memory by DMA address; nothing is reached while Bus Master Enable is off. */
  readonly memory: GuestMemory;
  readonly busMasterEnable: boolean;
  /** How many vectors there are to raise: MSI-X's, or MSI's where there is no MSI-X. */
  readonly vectors: number;
  /** The block of registers declared with this table. To be called once for each, while the model is made. */
  block<T extends RegisterTable>(table: T, events: BlockEvents<T>): RegisterBlock<T>;
  /** Copies memory pages of a BAR. @throws RangeError where anything else is in the range, or nothing */
  readRam(bar: number, offset: number, into: Uint8Array): void;
  writeRam(bar: number, offset: number, from: Uint8Array): void;
  /** Signals an MSI-X vector, or MSI where the guest bound that; false where there is none, or it is masked. */
  raise(vector: number): boolean;
  /** Asserts or deasserts the INTx pin that was declared; the guest hears of it unless Interrupt Disable is set. */
  driveIntx(asserted: boolean): void;
  /** Calls back once, unless the function is reset or goes before. @throws RangeError for more than 2³¹ - 1 milliseconds */
  after(milliseconds: number, callback: () => void): Timer;
  /**
   * Does what may take long: `step` is called until it gives false, a bounded time in each turn of the device thread, at
   * once if there is time left in this one. A step must be short; one of several parts asks `isOver` between them, and
   * returns early when it is. A reset forgets it.
   */
  work(step: (isOver: () => boolean) => boolean): void;
  /** One line in the backend's log. */
  log(level: 'debug' | 'info' | 'warn' | 'error', message: string): void;
}

/**
 * What one function does. Callbacks are synchronous, and short: no other function is served meanwhile. Timers and promises of
 * Node's are not served at all; `after` and `work` are.
 */
export interface FunctionModel {
  /** A trapped part of a BAR; `offset` counts from the BAR's start. `into` holds zeros: what is left out reads 0. */
  readTrapped?(bar: number, offset: number, into: Uint8Array): void;
  writeTrapped?(bar: number, offset: number, from: Uint8Array): void;
  /** After a function level reset, or the VMM's: config space and registers have their reset values again. */
  reset?(): void;
  /** The function goes: a VF whose VFs are disabled, or the end of the backend. */
  close?(): void;
}

/** INTA to INTD; of a device with one PF it is A. */
export type InterruptPin = 'A' | 'B' | 'C' | 'D';

export interface FunctionDeclaration<Shared> {
  readonly bars: readonly BarDeclaration[];
  /** 0 or none: no MSI-X. Their table is a part of a BAR. */
  readonly msixVectors?: number;
  /** 1, 2, 4, … 32; 0 or none: no MSI. */
  readonly msiVectors?: number;
  /** The INTx pin of a PF; none: it has no INTx, as a VF never has. */
  readonly interruptPin?: InterruptPin;
  /** An AER capability, whose bits nothing sets by itself. */
  readonly advancedErrorReporting?: boolean;
  /** What follows the length byte of a vendor-specific capability. */
  readonly vendorSpecific?: Uint8Array;
  /**
   * Config space as a real card showed it, 4096 bytes: it stands in place of the capabilities that the rest would make, and has
   * to agree with it. `--profile` gives it.
   */
  readonly configImage?: Uint8Array;
  create(port: FunctionPort, shared: Shared): FunctionModel;
}

/** A device: identity, PF and VFs. */
export interface DeviceDeclaration<Shared = undefined> {
  /** What a person calls it. */
  readonly name: string;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly vfDeviceId: number;
  /** Default: the vendor's and the PF's. */
  readonly subsystemVendorId?: number;
  readonly subsystemId?: number;
  /** Base class, subclass and programming interface: 0x010802 is NVMe. */
  readonly classCode: number;
  readonly revision?: number;
  readonly totalVfs: number;
  /** A Device Serial Number capability on the PF. */
  readonly serialNumber?: bigint;
  /** Making VFs takes so many milliseconds. */
  readonly enableMilliseconds?: number;
  /** What PF and VFs have in common, made before the PF. */
  share?(): Shared;
  /** After the last function has gone. */
  unshare?(shared: Shared): void;
  readonly pf: FunctionDeclaration<Shared>;
  readonly vf: FunctionDeclaration<Shared>;
}

/** A 64-bit memory BAR, unless said otherwise. */
export function memoryBar(
  index: number,
  size: number,
  parts: readonly BarPart[],
  shape: { readonly width?: 32 | 64; readonly prefetchable?: boolean } = {},
): BarDeclaration {
  const { width = 64, prefetchable = false } = shape;
  return { index, size, kind: `memory${width}`, prefetchable, parts };
}

export function ram(at: number, size: number): BarPart {
  return { kind: 'ram', at, size };
}

/** `table` and `labels` name what is there, for traces. */
export function trapped(
  at: number,
  size: number,
  table?: RegisterTable,
  labels: RegisterLabels = {},
): BarPart {
  return { kind: 'trapped', at, size, ...(table === undefined ? {} : { table, labels }) };
}

/** `reset`: values of registers that do not start as 0; `labels`: what traces call them. */
export function registers<T extends RegisterTable>(
  at: number,
  table: T,
  reset: Partial<Record<RegisterName<T>, number>> = {},
  labels: RegisterLabels = {},
): BarPart {
  const ends = Object.values(table).map(({ offset, bytes }) => offset + bytes);
  const size = Math.ceil(Math.max(0, ...ends) / 4) * 4;
  return { kind: 'registers', at, size, table, reset: reset as Record<string, number>, labels };
}

/** Table and pending bits, in a page of their own unless said otherwise. */
export function msixTable(at: number, pendingAt = at + PAGE_BYTES / 2): BarPart {
  return { kind: 'msix', at, pendingAt };
}

/** A card of one's own: what a module that `serve --device=FILE` loads exports as its default. Checked when it is loaded. */
export function defineDevice<Shared = undefined>(
  declaration: DeviceDeclaration<Shared>,
): DeviceDeclaration<Shared> {
  return declaration;
}
