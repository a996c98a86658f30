// What Identify answers. NVM Express 1.4, "Identify command": each structure beside the standard's own name.

import { u8, u16, u32, u64 } from '../../../../protocol/record.ts';
import { ascii, at, raw, structure, terminated } from './structure.ts';

export const IDENTIFY_BYTES = 4096;

/** CNS, which structure is asked for. */
export const IdentifyCns = {
  namespace: 0x00,
  controller: 0x01,
  activeNamespaces: 0x02,
  namespaceDescriptors: 0x03,
  controllers: 0x13,
  primaryCapabilities: 0x14,
  secondaryControllers: 0x15,
} as const;

export const IDENTIFY_CONTROLLER = structure(IDENTIFY_BYTES, {
  /** VID, SSVID, SN, MN, FR. */
  vendorId: at(0, u16),
  subsystemVendorId: at(2, u16),
  serialNumber: at(4, ascii(20)),
  modelNumber: at(24, ascii(40)),
  firmwareRevision: at(64, ascii(8)),
  /** RAB. */
  recommendedArbitrationBurst: at(72, u8),
  ieeeOui: at(73, raw(3)),
  /** CMIC: bit 1, one of several controllers; bit 2, a VF's. */
  multiPath: at(76, u8),
  /** MDTS, in units of the smallest page, as a power of two. */
  maximumDataTransfer: at(77, u8),
  /** CNTLID. */
  controllerId: at(78, u16),
  version: at(80, u32),
  /** RTD3R and RTD3E, in microseconds. */
  resumeLatency: at(84, u32),
  entryLatency: at(88, u32),
  /** CNTRLTYPE: 1 is an I/O controller. */
  controllerType: at(111, u8),
  /** OACS: bit 7, Virtualization Management; bit 8, Doorbell Buffer Config. */
  optionalAdminCommands: at(256, u16),
  /** ACL and AERL, 0's based. */
  abortLimit: at(258, u8),
  eventRequestLimit: at(259, u8),
  /** FRMW: bit 0, slot 1 is read-only; bits 3:1, slots. */
  firmwareUpdates: at(260, u8),
  /** LPA: bit 1, Commands Supported and Effects; bit 2, offsets in log pages. */
  logPageAttributes: at(261, u8),
  /** ELPE and NPSS, 0's based. */
  errorLogEntries: at(262, u8),
  powerStates: at(263, u8),
  /** WCTEMP and CCTEMP, in kelvin. */
  warningTemperature: at(266, u16),
  criticalTemperature: at(268, u16),
  /** SQES and CQES: required and largest entry sizes as powers of two. */
  submissionEntrySizes: at(512, u8),
  completionEntrySizes: at(513, u8),
  /** NN. */
  namespaces: at(516, u32),
  /** ONCS: bit 0, Compare; 2, Dataset Management; 3, Write Zeroes; 4, Save and Select of features. */
  optionalIoCommands: at(520, u16),
  /** VWC: bit 0, there is a volatile write cache; bits 2:1 = 3, Flush takes all namespaces at once. */
  volatileWriteCache: at(525, u8),
  /** SUBNQN. */
  subsystemName: at(768, terminated(256)),
  /** MP of power state 0, in centiwatts. */
  maximumPower: at(2048, u16),
});

/** LBADS is bits 23:16 of a format. */
export const IDENTIFY_NAMESPACE = structure(IDENTIFY_BYTES, {
  /** NSZE, NCAP and NUSE, in blocks. */
  size: at(0, u64),
  capacity: at(8, u64),
  utilization: at(16, u64),
  /** NLBAF, 0's based, and FLBAS. */
  formats: at(25, u8),
  formattedWith: at(26, u8),
  /** DLFEAT: bits 2:0 = 1, deallocated blocks read 0; bit 3, Write Zeroes can deallocate. */
  deallocateFeatures: at(33, u8),
  /** NGUID and EUI64. */
  globallyUniqueId: at(104, raw(16)),
  eui64: at(120, raw(8)),
  format0: at(128, u32),
});

/** One descriptor of CNS 03h: type, length, and so many bytes. */
export const DescriptorType = { eui64: 1, nguid: 2, uuid: 3 } as const;

export const PRIMARY_CAPABILITIES = structure(IDENTIFY_BYTES, {
  controllerId: at(0, u16),
  portId: at(2, u16),
  /** CRT: bit 0, queue resources; bit 1, interrupt resources. */
  resourceTypes: at(4, u8),
  /** VQFRT, VQRFA, VQRFAP, VQPRT, VQFRSM, VQGRAN. */
  queuesFlexible: at(32, u32),
  queuesAssigned: at(36, u32),
  queuesAllocatedToPrimary: at(40, u16),
  queuesPrivate: at(42, u16),
  queuesMostPerSecondary: at(44, u16),
  queuesGranularity: at(46, u16),
  /** VIFRT, VIRFA, VIRFAP, VIPRT, VIFRSM, VIGRAN. */
  interruptsFlexible: at(64, u32),
  interruptsAssigned: at(68, u32),
  interruptsAllocatedToPrimary: at(72, u16),
  interruptsPrivate: at(74, u16),
  interruptsMostPerSecondary: at(76, u16),
  interruptsGranularity: at(78, u16),
});

/** Byte 0 of the list is their number; they start at byte 32. */
export const SECONDARY_CONTROLLER = structure(32, {
  controllerId: at(0, u16),
  primaryId: at(2, u16),
  /** SCS: bit 0, online. */
  state: at(4, u8),
  /** VFN, counted from 1. */
  virtualFunction: at(8, u16),
  queues: at(10, u16),
  interrupts: at(12, u16),
});
