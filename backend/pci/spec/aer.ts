// Advanced Error Reporting extended capability, of an endpoint. PCIe Base 4.0, "Advanced Error Reporting Extended
// Capability". The root registers do not exist in an endpoint: their bytes read 0.

import { type Access, bit, bits, type RegisterTable, reg32 } from '../registers.ts';
import { EXTENDED_HEADER } from './extended-header.ts';

export const AER_BYTES = 0x48;

const uncorrectable = (access: Access) => ({
  dataLinkProtocolError: bit(4, access),
  surpriseDownError: bit(5, access),
  poisonedTlpReceived: bit(12, access),
  flowControlProtocolError: bit(13, access),
  completionTimeout: bit(14, access),
  completerAbort: bit(15, access),
  unexpectedCompletion: bit(16, access),
  receiverOverflow: bit(17, access),
  malformedTlp: bit(18, access),
  ecrcError: bit(19, access),
  unsupportedRequestError: bit(20, access),
  acsViolation: bit(21, access),
  uncorrectableInternalError: bit(22, access),
  mcBlockedTlp: bit(23, access),
  atomicOpEgressBlocked: bit(24, access),
  tlpPrefixBlocked: bit(25, access),
  poisonedTlpEgressBlocked: bit(26, access),
});

const correctable = (access: Access) => ({
  receiverError: bit(0, access),
  badTlp: bit(6, access),
  badDllp: bit(7, access),
  replayNumRollover: bit(8, access),
  replayTimerTimeout: bit(12, access),
  advisoryNonFatalError: bit(13, access),
  correctedInternalError: bit(14, access),
  headerLogOverflow: bit(15, access),
});

export const AER = {
  header: EXTENDED_HEADER,
  uncorrectableErrorStatus: reg32(0x04, uncorrectable('rw1c')),
  uncorrectableErrorMask: reg32(0x08, uncorrectable('rw')),
  uncorrectableErrorSeverity: reg32(0x0c, uncorrectable('rw')),
  correctableErrorStatus: reg32(0x10, correctable('rw1c')),
  correctableErrorMask: reg32(0x14, correctable('rw')),
  capabilitiesControl: reg32(0x18, {
    firstErrorPointer: bits(4, 0, 'ro'),
    ecrcGenerationCapable: bit(5, 'ro'),
    ecrcGenerationEnable: bit(6, 'rw'),
    ecrcCheckCapable: bit(7, 'ro'),
    ecrcCheckEnable: bit(8, 'rw'),
    multipleHeaderRecordingCapable: bit(9, 'ro'),
    multipleHeaderRecordingEnable: bit(10, 'rw'),
    tlpPrefixLogPresent: bit(11, 'ro'),
    completionTimeoutPrefixHeaderLogCapable: bit(12, 'ro'),
  }),
  headerLog0: reg32(0x1c, 'ro'),
  headerLog1: reg32(0x20, 'ro'),
  headerLog2: reg32(0x24, 'ro'),
  headerLog3: reg32(0x28, 'ro'),
  tlpPrefixLog0: reg32(0x38, 'ro'),
  tlpPrefixLog1: reg32(0x3c, 'ro'),
  tlpPrefixLog2: reg32(0x40, 'ro'),
  tlpPrefixLog3: reg32(0x44, 'ro'),
} satisfies RegisterTable;
