// PCI Express capability, version 2, of an endpoint. PCIe Base 4.0, "PCI Express Capability Structure".
// Slot and Root registers do not exist in an endpoint: their bytes read 0.

import { bit, bits, type RegisterTable, reg8, reg16, reg32 } from '../registers.ts';

export const PCI_EXPRESS_BYTES = 0x3c;

export const PCI_EXPRESS = {
  capabilityId: reg8(0x00, 'ro'),
  nextPointer: reg8(0x01, 'ro'),
  capabilities: reg16(0x02, {
    version: bits(3, 0, 'ro'),
    devicePortType: bits(7, 4, 'ro'),
    slotImplemented: bit(8, 'ro'),
    interruptMessageNumber: bits(13, 9, 'ro'),
  }),
  deviceCapabilities: reg32(0x04, {
    maxPayloadSizeSupported: bits(2, 0, 'ro'),
    phantomFunctionsSupported: bits(4, 3, 'ro'),
    extendedTagFieldSupported: bit(5, 'ro'),
    l0sAcceptableLatency: bits(8, 6, 'ro'),
    l1AcceptableLatency: bits(11, 9, 'ro'),
    roleBasedErrorReporting: bit(15, 'ro'),
    functionLevelReset: bit(28, 'ro'),
  }),
  deviceControl: reg16(0x08, {
    correctableErrorReportingEnable: bit(0, 'rw'),
    nonFatalErrorReportingEnable: bit(1, 'rw'),
    fatalErrorReportingEnable: bit(2, 'rw'),
    unsupportedRequestReportingEnable: bit(3, 'rw'),
    relaxedOrderingEnable: bit(4, 'rw'),
    maxPayloadSize: bits(7, 5, 'rw'),
    extendedTagFieldEnable: bit(8, 'rw'),
    phantomFunctionsEnable: bit(9, 'ro'),
    auxPowerEnable: bit(10, 'ro'),
    noSnoopEnable: bit(11, 'rw'),
    maxReadRequestSize: bits(14, 12, 'rw'),
    /** Always reads 0: whoever sees it set in a change starts the reset and clears the field again. */
    initiateFunctionLevelReset: bit(15, 'rw'),
  }),
  deviceStatus: reg16(0x0a, {
    correctableErrorDetected: bit(0, 'rw1c'),
    nonFatalErrorDetected: bit(1, 'rw1c'),
    fatalErrorDetected: bit(2, 'rw1c'),
    unsupportedRequestDetected: bit(3, 'rw1c'),
    auxPowerDetected: bit(4, 'ro'),
    transactionsPending: bit(5, 'ro'),
  }),
  linkCapabilities: reg32(0x0c, {
    maxLinkSpeed: bits(3, 0, 'ro'),
    maxLinkWidth: bits(9, 4, 'ro'),
    aspmSupport: bits(11, 10, 'ro'),
    portNumber: bits(31, 24, 'ro'),
  }),
  linkControl: reg16(0x10, {
    aspmControl: bits(1, 0, 'rw'),
    readCompletionBoundary: bit(3, 'rw'),
    commonClockConfiguration: bit(6, 'rw'),
    extendedSynch: bit(7, 'rw'),
  }),
  linkStatus: reg16(0x12, {
    currentLinkSpeed: bits(3, 0, 'ro'),
    negotiatedLinkWidth: bits(9, 4, 'ro'),
    slotClockConfiguration: bit(12, 'ro'),
  }),
  deviceCapabilities2: reg32(0x24, 'ro'),
  deviceControl2: reg16(0x28, {
    completionTimeoutValue: bits(3, 0, 'rw'),
    completionTimeoutDisable: bit(4, 'rw'),
  }),
  deviceStatus2: reg16(0x2a, 'ro'),
  linkCapabilities2: reg32(0x2c, 'ro'),
  linkControl2: reg16(0x30, 'ro'),
  linkStatus2: reg16(0x32, 'ro'),
} satisfies RegisterTable;

/**
 * A VF's PCI Express capability: only FLR can be started; the PF's settings rule the rest.
 * Device Control of a VF, PCIe Base 4.0, "VF PCI Express Capability".
 */
export const VF_PCI_EXPRESS = {
  ...PCI_EXPRESS,
  deviceControl: reg16(0x08, {
    correctableErrorReportingEnable: bit(0, 'ro'),
    nonFatalErrorReportingEnable: bit(1, 'ro'),
    fatalErrorReportingEnable: bit(2, 'ro'),
    unsupportedRequestReportingEnable: bit(3, 'ro'),
    relaxedOrderingEnable: bit(4, 'ro'),
    maxPayloadSize: bits(7, 5, 'ro'),
    extendedTagFieldEnable: bit(8, 'ro'),
    phantomFunctionsEnable: bit(9, 'ro'),
    auxPowerEnable: bit(10, 'ro'),
    noSnoopEnable: bit(11, 'ro'),
    maxReadRequestSize: bits(14, 12, 'ro'),
    initiateFunctionLevelReset: bit(15, 'rw'),
  }),
  linkControl: reg16(0x10, 'ro'),
  deviceControl2: reg16(0x28, 'ro'),
} satisfies RegisterTable;

/** Values of Device/Port Type in PCI Express Capabilities. */
export const DevicePortType = {
  endpoint: 0x0,
  legacyEndpoint: 0x1,
  rootPort: 0x4,
  rootComplexIntegratedEndpoint: 0x9,
} as const;
