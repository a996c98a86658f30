// The registers of Linux's PCI test endpoint, as its two sides have them: drivers/misc/pci_endpoint_test.c and
// drivers/pci/endpoint/functions/pci-epf-test.c. At the start of BAR 0; 32-bit, little-endian.

import { bit, type RegisterTable, reg32 } from '../../pci/registers.ts';

export const ENDPOINT_TEST = {
  /** Keeps what is written: the driver's test of this BAR writes here, and nowhere else in it. */
  magic: reg32(0x00, 'rw'),
  /** What is set is done, and the register reads 0 again. */
  command: reg32(0x04, {
    raiseIntxIrq: bit(0, 'rw'),
    raiseMsiIrq: bit(1, 'rw'),
    raiseMsixIrq: bit(2, 'rw'),
    read: bit(3, 'rw'),
    write: bit(4, 'rw'),
    copy: bit(5, 'rw'),
    enableDoorbell: bit(6, 'rw'),
    disableDoorbell: bit(7, 'rw'),
    setUpBarSubrange: bit(8, 'rw'),
    clearBarSubrange: bit(9, 'rw'),
  }),
  status: reg32(0x08, {
    readSuccess: bit(0, 'rw'),
    readFail: bit(1, 'rw'),
    writeSuccess: bit(2, 'rw'),
    writeFail: bit(3, 'rw'),
    copySuccess: bit(4, 'rw'),
    copyFail: bit(5, 'rw'),
    irqRaised: bit(6, 'rw'),
    sourceAddressInvalid: bit(7, 'rw'),
    destinationAddressInvalid: bit(8, 'rw'),
    doorbellSuccess: bit(9, 'rw'),
    doorbellEnableSuccess: bit(10, 'rw'),
    doorbellEnableFail: bit(11, 'rw'),
    doorbellDisableSuccess: bit(12, 'rw'),
    doorbellDisableFail: bit(13, 'rw'),
    barSubrangeSetupSuccess: bit(14, 'rw'),
    barSubrangeSetupFail: bit(15, 'rw'),
    barSubrangeClearSuccess: bit(16, 'rw'),
    barSubrangeClearFail: bit(17, 'rw'),
  }),
  lowerSourceAddress: reg32(0x0c, 'rw'),
  upperSourceAddress: reg32(0x10, 'rw'),
  lowerDestinationAddress: reg32(0x14, 'rw'),
  upperDestinationAddress: reg32(0x18, 'rw'),
  /** Bytes; the BAR of a command about one. */
  size: reg32(0x1c, 'rw'),
  /** CRC-32 of what is read or written, from all-ones on and not inverted in the end: Linux's crc32_le(~0, …). */
  checksum: reg32(0x20, 'rw'),
  /** IrqType that a command is answered by. */
  irqType: reg32(0x24, 'rw'),
  /** The first message is 1. */
  irqNumber: reg32(0x28, 'rw'),
  /** Whether to use a DMA engine: all the same here. */
  flags: reg32(0x2c, { useDma: bit(0, 'rw') }),
  /** What the endpoint can do; a driver older than Linux 6.15 does not look. */
  capabilities: reg32(0x30, {
    unalignedAccess: bit(0, 'ro'),
    msi: bit(1, 'ro'),
    msix: bit(2, 'ro'),
    intx: bit(3, 'ro'),
    subrangeMapping: bit(4, 'ro'),
    dynamicInboundMapping: bit(5, 'ro'),
  }),
  /** Where the doorbell is: BAR, offset in it, and the value that rings it. */
  doorbellBar: reg32(0x34, 'ro'),
  doorbellOffset: reg32(0x38, 'ro'),
  doorbellData: reg32(0x3c, 'ro'),
  /** The doorbell itself, for which the driver is told the place. */
  doorbell: reg32(0x40, 'rw'),
} satisfies RegisterTable;

export const IrqType = { intx: 0, msi: 1, msix: 2 } as const;
