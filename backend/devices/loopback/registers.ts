// The registers of a loopback function: page 0 of its BAR 0, as data. 32-bit, little-endian.

import { type RegisterTable, reg32 } from '../../pci/registers.ts';

/** Offsets in bytes from the start of BAR 0. */
export const Register = {
  /** RO: MAGIC. */
  magic: 0x00,
  /** RO: 0 = PF, 1 + vfIndex = VF. */
  functionNumber: 0x04,
  /** RO: the enable that brought this VF up, counted from 1; 0 on the PF. */
  generation: 0x08,
  /** RW: keeps what is written. */
  scratch: 0x0c,
  /** WO: raises the MSI-X vector written (MSI where MSI-X is not bound). */
  doorbell: 0x10,
  /** RO: doorbells that raised something. */
  doorbellCount: 0x14,
  dmaSourceLow: 0x20,
  dmaSourceHigh: 0x24,
  dmaDestinationLow: 0x28,
  dmaDestinationHigh: 0x2c,
  /** RW: bytes, at most DMA_LIMIT. */
  dmaLength: 0x30,
  /** RW: vector raised when a copy is done, well or not. */
  dmaVector: 0x34,
  /** WO: 1 starts the copy. */
  dmaStart: 0x38,
  /** RO: DmaStatus of the last copy. */
  dmaStatus: 0x3c,
} as const;

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

/** The registers by name, for whoever shows accesses to people. */
export const REGISTER_TABLE: RegisterTable = Object.fromEntries(
  Object.entries(Register).map(([name, offset]) => [name, reg32(offset, 'rw')]),
);

/** What a guest may write and read back. */
export const READ_WRITE: readonly number[] = [
  Register.scratch,
  Register.dmaSourceLow,
  Register.dmaSourceHigh,
  Register.dmaDestinationLow,
  Register.dmaDestinationHigh,
  Register.dmaLength,
  Register.dmaVector,
];
