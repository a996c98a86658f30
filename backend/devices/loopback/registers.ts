// The registers of a loopback function: page 0 of its BAR 0, as data. 32-bit, little-endian.

import { type RegisterTable, reg32 } from '../../pci/registers.ts';

export const LOOPBACK = {
  /** MAGIC. */
  magic: reg32(0x00, 'ro'),
  /** 0 = PF, 1 + vfIndex = VF. */
  functionNumber: reg32(0x04, 'ro'),
  /** The enable that brought this VF up, counted from 1; 0 on the PF. */
  generation: reg32(0x08, 'ro'),
  /** Keeps what is written. */
  scratch: reg32(0x0c, 'rw'),
  /** Raises the MSI-X vector written (MSI where MSI-X is not bound); reads 0. */
  doorbell: reg32(0x10, 'rw'),
  /** Doorbells that raised something. */
  doorbellCount: reg32(0x14, 'ro'),
  dmaSourceLow: reg32(0x20, 'rw'),
  dmaSourceHigh: reg32(0x24, 'rw'),
  dmaDestinationLow: reg32(0x28, 'rw'),
  dmaDestinationHigh: reg32(0x2c, 'rw'),
  /** Bytes, at most DMA_LIMIT. */
  dmaLength: reg32(0x30, 'rw'),
  /** Vector raised when a copy is done, well or not. */
  dmaVector: reg32(0x34, 'rw'),
  /** 1 starts the copy; reads 0. */
  dmaStart: reg32(0x38, 'rw'),
  /** DmaStatus of the last copy. */
  dmaStatus: reg32(0x3c, 'ro'),
} satisfies RegisterTable;

/** Offsets in bytes from the start of BAR 0. */
export const Register = Object.fromEntries(
  Object.entries(LOOPBACK).map(([name, { offset }]) => [name, offset]),
) as { readonly [Name in keyof typeof LOOPBACK]: number };

/** "VUSR" in memory order. */
export const MAGIC = 0x52535556;

export const DMA_LIMIT = 1 << 20;

export const DmaStatus = {
  idle: 0,
  done: 1,
  notMapped: 2,
  busMasterOff: 3,
  badLength: 4,
} as const;

/** The BAR's layout in bytes: registers, then MSI-X table and pending bits, then memory. */
export const Layout = {
  registers: 0,
  msixTable: 0x1000,
  msixPending: 0x1800,
  memory: 0x2000,
} as const;
