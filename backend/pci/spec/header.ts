// The type 0 configuration header, of a physical function and of a virtual one.
// PCIe Base 4.0, "Type 0 Configuration Space Header" and "VF Configuration Space Header" differences.

import { bit, bits, type RegisterTable, readOnly, reg8, reg16, reg32 } from '../registers.ts';

export const HEADER_BYTES = 0x40;

/** Length of config space: without and with the extended part. */
export const CONFIG_BYTES = 0x100;
export const EXTENDED_CONFIG_BYTES = 0x1000;

export const HEADER = {
  vendorId: reg16(0x00, 'ro'),
  deviceId: reg16(0x02, 'ro'),
  command: reg16(0x04, {
    ioSpaceEnable: bit(0, 'rw'),
    memorySpaceEnable: bit(1, 'rw'),
    busMasterEnable: bit(2, 'rw'),
    parityErrorResponse: bit(6, 'rw'),
    serrEnable: bit(8, 'rw'),
    interruptDisable: bit(10, 'rw'),
  }),
  status: reg16(0x06, {
    immediateReadiness: bit(0, 'ro'),
    interruptStatus: bit(3, 'ro'),
    capabilitiesList: bit(4, 'ro'),
    masterDataParityError: bit(8, 'rw1c'),
    signaledTargetAbort: bit(11, 'rw1c'),
    receivedTargetAbort: bit(12, 'rw1c'),
    receivedMasterAbort: bit(13, 'rw1c'),
    signaledSystemError: bit(14, 'rw1c'),
    detectedParityError: bit(15, 'rw1c'),
  }),
  revisionId: reg8(0x08, 'ro'),
  programmingInterface: reg8(0x09, 'ro'),
  subClass: reg8(0x0a, 'ro'),
  baseClass: reg8(0x0b, 'ro'),
  cacheLineSize: reg8(0x0c, 'rw'),
  latencyTimer: reg8(0x0d, 'ro'),
  headerType: reg8(0x0e, { layout: bits(6, 0, 'ro'), multiFunction: bit(7, 'ro') }),
  builtInSelfTest: reg8(0x0f, {
    completionCode: bits(3, 0, 'ro'),
    start: bit(6, 'ro'),
    capable: bit(7, 'ro'),
  }),
  /** What a guest can write of a BAR follows from its size: narrow it by its layout (bars.ts). */
  bar0: reg32(0x10, 'rw'),
  bar1: reg32(0x14, 'rw'),
  bar2: reg32(0x18, 'rw'),
  bar3: reg32(0x1c, 'rw'),
  bar4: reg32(0x20, 'rw'),
  bar5: reg32(0x24, 'rw'),
  cardbusCisPointer: reg32(0x28, 'ro'),
  subsystemVendorId: reg16(0x2c, 'ro'),
  subsystemId: reg16(0x2e, 'ro'),
  /** Narrow it by its layout: to 0 where there is no expansion ROM. */
  expansionRomBase: reg32(0x30, {
    enable: bit(0, 'rw'),
    validationStatus: bits(3, 1, 'ro'),
    validationDetails: bits(7, 4, 'ro'),
    address: bits(31, 11, 'rw'),
  }),
  capabilitiesPointer: reg8(0x34, 'ro'),
  interruptLine: reg8(0x3c, 'rw'),
  interruptPin: reg8(0x3d, 'ro'),
  minimumGrant: reg8(0x3e, 'ro'),
  maximumLatency: reg8(0x3f, 'ro'),
} satisfies RegisterTable;

/**
 * A VF's header: of Command only Bus Master Enable can be written, and BARs, ROM and interrupt registers are 0.
 * Vendor and Device ID read 0xffff by standard, so give both as reset values.
 */
export const VF_HEADER = {
  ...HEADER,
  command: reg16(HEADER.command.offset, {
    ...readOnly(HEADER.command).fields,
    busMasterEnable: bit(2, 'rw'),
  }),
  cacheLineSize: readOnly(HEADER.cacheLineSize),
  bar0: readOnly(HEADER.bar0),
  bar1: readOnly(HEADER.bar1),
  bar2: readOnly(HEADER.bar2),
  bar3: readOnly(HEADER.bar3),
  bar4: readOnly(HEADER.bar4),
  bar5: readOnly(HEADER.bar5),
  expansionRomBase: readOnly(HEADER.expansionRomBase),
  interruptLine: readOnly(HEADER.interruptLine),
} satisfies RegisterTable;

/** The BAR registers by BAR index. */
export const BAR_REGISTERS = ['bar0', 'bar1', 'bar2', 'bar3', 'bar4', 'bar5'] as const;
