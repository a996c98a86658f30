// PCI Express capability, version 2, of an endpoint. PCIe Base 4.0, "PCI Express Capability Structure".
// Slot and Root registers do not exist in an endpoint: their bytes read 0.

import { bit, bits, type RegisterTable, readOnly, reg8, reg16, reg32 } from '../registers.ts';

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
    capturedSlotPowerLimitValue: bits(25, 18, 'ro'),
    capturedSlotPowerLimitScale: bits(27, 26, 'ro'),
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
    emergencyPowerReductionDetected: bit(6, 'rw1c'),
  }),
  linkCapabilities: reg32(0x0c, {
    maxLinkSpeed: bits(3, 0, 'ro'),
    maxLinkWidth: bits(9, 4, 'ro'),
    aspmSupport: bits(11, 10, 'ro'),
    l0sExitLatency: bits(14, 12, 'ro'),
    l1ExitLatency: bits(17, 15, 'ro'),
    clockPowerManagement: bit(18, 'ro'),
    surpriseDownErrorReportingCapable: bit(19, 'ro'),
    dataLinkLayerLinkActiveReportingCapable: bit(20, 'ro'),
    linkBandwidthNotificationCapability: bit(21, 'ro'),
    aspmOptionalityCompliance: bit(22, 'ro'),
    portNumber: bits(31, 24, 'ro'),
  }),
  linkControl: reg16(0x10, {
    aspmControl: bits(1, 0, 'rw'),
    readCompletionBoundary: bit(3, 'rw'),
    commonClockConfiguration: bit(6, 'rw'),
    extendedSynch: bit(7, 'rw'),
    enableClockPowerManagement: bit(8, 'rw'),
    hardwareAutonomousWidthDisable: bit(9, 'rw'),
  }),
  linkStatus: reg16(0x12, {
    currentLinkSpeed: bits(3, 0, 'ro'),
    negotiatedLinkWidth: bits(9, 4, 'ro'),
    linkTraining: bit(11, 'ro'),
    slotClockConfiguration: bit(12, 'ro'),
    dataLinkLayerLinkActive: bit(13, 'ro'),
    linkBandwidthManagementStatus: bit(14, 'rw1c'),
    linkAutonomousBandwidthStatus: bit(15, 'rw1c'),
  }),
  deviceCapabilities2: reg32(0x24, {
    completionTimeoutRangesSupported: bits(3, 0, 'ro'),
    completionTimeoutDisableSupported: bit(4, 'ro'),
    ariForwardingSupported: bit(5, 'ro'),
    atomicOpRoutingSupported: bit(6, 'ro'),
    atomicOpCompleter32Supported: bit(7, 'ro'),
    atomicOpCompleter64Supported: bit(8, 'ro'),
    casCompleter128Supported: bit(9, 'ro'),
    noRoEnabledPrPrPassing: bit(10, 'ro'),
    ltrMechanismSupported: bit(11, 'ro'),
    tphCompleterSupported: bits(13, 12, 'ro'),
    lnSystemCls: bits(15, 14, 'ro'),
    completer10BitTagSupported: bit(16, 'ro'),
    requester10BitTagSupported: bit(17, 'ro'),
    obffSupported: bits(19, 18, 'ro'),
    extendedFmtFieldSupported: bit(20, 'ro'),
    endEndTlpPrefixSupported: bit(21, 'ro'),
    maxEndEndTlpPrefixes: bits(23, 22, 'ro'),
    emergencyPowerReductionSupported: bits(25, 24, 'ro'),
    emergencyPowerReductionInitializationRequired: bit(26, 'ro'),
    frsSupported: bit(31, 'ro'),
  }),
  deviceControl2: reg16(0x28, {
    completionTimeoutValue: bits(3, 0, 'rw'),
    completionTimeoutDisable: bit(4, 'rw'),
    ariForwardingEnable: bit(5, 'ro'),
    atomicOpRequesterEnable: bit(6, 'rw'),
    atomicOpEgressBlocking: bit(7, 'ro'),
    idoRequestEnable: bit(8, 'rw'),
    idoCompletionEnable: bit(9, 'rw'),
    ltrMechanismEnable: bit(10, 'rw'),
    emergencyPowerReductionRequest: bit(11, 'rw'),
    requester10BitTagEnable: bit(12, 'rw'),
    obffEnable: bits(14, 13, 'rw'),
    endEndTlpPrefixBlocking: bit(15, 'ro'),
  }),
  deviceStatus2: reg16(0x2a, 'ro'),
  linkCapabilities2: reg32(0x2c, {
    supportedLinkSpeedsVector: bits(7, 1, 'ro'),
    crosslinkSupported: bit(8, 'ro'),
    lowerSkpOsGenerationSupportedSpeeds: bits(15, 9, 'ro'),
    lowerSkpOsReceptionSupportedSpeeds: bits(22, 16, 'ro'),
    retimerPresenceDetectSupported: bit(23, 'ro'),
    twoRetimersPresenceDetectSupported: bit(24, 'ro'),
    drsSupported: bit(31, 'ro'),
  }),
  linkControl2: reg16(0x30, {
    targetLinkSpeed: bits(3, 0, 'rw'),
    enterCompliance: bit(4, 'rw'),
    hardwareAutonomousSpeedDisable: bit(5, 'rw'),
    selectableDeemphasis: bit(6, 'ro'),
    transmitMargin: bits(9, 7, 'rw'),
    enterModifiedCompliance: bit(10, 'rw'),
    complianceSos: bit(11, 'rw'),
    compliancePreset: bits(15, 12, 'rw'),
  }),
  linkStatus2: reg16(0x32, {
    currentDeemphasisLevel: bit(0, 'ro'),
    equalizationComplete: bit(1, 'ro'),
    equalizationPhase1Successful: bit(2, 'ro'),
    equalizationPhase2Successful: bit(3, 'ro'),
    equalizationPhase3Successful: bit(4, 'ro'),
    linkEqualizationRequest: bit(5, 'rw1c'),
    retimerPresenceDetected: bit(6, 'ro'),
    twoRetimersPresenceDetected: bit(7, 'ro'),
    crosslinkResolution: bits(9, 8, 'ro'),
    downstreamComponentPresence: bits(14, 12, 'ro'),
    drsMessageReceived: bit(15, 'rw1c'),
  }),
} satisfies RegisterTable;

/**
 * A VF's PCI Express capability: only FLR can be started; the PF's settings rule the rest.
 * Device Control of a VF, PCIe Base 4.0, "VF PCI Express Capability".
 */
export const VF_PCI_EXPRESS = {
  ...PCI_EXPRESS,
  deviceControl: reg16(PCI_EXPRESS.deviceControl.offset, {
    ...readOnly(PCI_EXPRESS.deviceControl).fields,
    initiateFunctionLevelReset: bit(15, 'rw'),
  }),
  linkControl: readOnly(PCI_EXPRESS.linkControl),
  deviceControl2: readOnly(PCI_EXPRESS.deviceControl2),
  linkControl2: readOnly(PCI_EXPRESS.linkControl2),
} satisfies RegisterTable;

/** Values of Device/Port Type in PCI Express Capabilities. */
export const DevicePortType = {
  endpoint: 0x0,
  legacyEndpoint: 0x1,
  rootPort: 0x4,
  rootComplexIntegratedEndpoint: 0x9,
} as const;
