// Capability numbers, and which capabilities a guest may see. A capability that is not on a list is unlinked from
// the chain (capability-chain.ts): a list of the known-good is safe against what next year's device brings.

/** PCI Code and ID Assignment Specification, "Capability IDs". */
export const CapabilityId = {
  powerManagement: 0x01,
  vitalProductData: 0x03,
  msi: 0x05,
  vendorSpecific: 0x09,
  pciExpress: 0x10,
  msix: 0x11,
  advancedFeatures: 0x13,
} as const;
export type CapabilityId = (typeof CapabilityId)[keyof typeof CapabilityId];

/** PCI Code and ID Assignment Specification, "Extended Capability IDs". */
export const ExtendedCapabilityId = {
  null: 0x0000,
  advancedErrorReporting: 0x0001,
  deviceSerialNumber: 0x0003,
  vendorSpecific: 0x000b,
  accessControlServices: 0x000d,
  alternativeRoutingId: 0x000e,
  addressTranslationServices: 0x000f,
  sriov: 0x0010,
  pageRequest: 0x0013,
  resizableBar: 0x0015,
  latencyTolerance: 0x0018,
  secondaryPciExpress: 0x0019,
  pasid: 0x001b,
  designatedVendorSpecific: 0x0023,
  vfResizableBar: 0x0024,
} as const;
export type ExtendedCapabilityId = (typeof ExtendedCapabilityId)[keyof typeof ExtendedCapabilityId];

export interface AllowedCapabilities {
  readonly standard: ReadonlySet<number>;
  readonly extended: ReadonlySet<number>;
}

const STANDARD: ReadonlySet<number> = new Set([
  CapabilityId.powerManagement,
  CapabilityId.vitalProductData,
  CapabilityId.msi,
  CapabilityId.vendorSpecific,
  CapabilityId.pciExpress,
  CapabilityId.msix,
]);

/** What a guest sees of a PF. ATS, PRI, PASID and both Resizable BARs need the host's hand: not listed. */
export const PF_CAPABILITIES: AllowedCapabilities = {
  standard: STANDARD,
  extended: new Set([
    ExtendedCapabilityId.advancedErrorReporting,
    ExtendedCapabilityId.deviceSerialNumber,
    ExtendedCapabilityId.vendorSpecific,
    ExtendedCapabilityId.alternativeRoutingId,
    ExtendedCapabilityId.sriov,
    ExtendedCapabilityId.designatedVendorSpecific,
  ]),
};

/** What a guest sees of a VF: never SR-IOV, which makes a Linux guest crash. */
export const VF_CAPABILITIES: AllowedCapabilities = {
  standard: STANDARD,
  extended: new Set([
    ExtendedCapabilityId.advancedErrorReporting,
    ExtendedCapabilityId.vendorSpecific,
    ExtendedCapabilityId.alternativeRoutingId,
    ExtendedCapabilityId.designatedVendorSpecific,
  ]),
};
