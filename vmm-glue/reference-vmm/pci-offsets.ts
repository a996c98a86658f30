// Where a guest's kernel looks in config space: offsets and bits of the PCI and PCI Express standards (PCI Local Bus
// 3.0, "Configuration Space"; PCIe Base 4.0, "Single Root I/O Virtualization"). A reader of its own, on purpose: it
// shares no numbers with the backend (backend/pci/spec), so that a wrong one shows.

/** Type 0 header. */
export const Header = {
  vendorId: 0x00,
  command: 0x04,
  status: 0x06,
  revisionAndClass: 0x08,
  headerType: 0x0e,
  bar0: 0x10,
  subsystemVendorId: 0x2c,
  subsystemId: 0x2e,
  capabilitiesPointer: 0x34,
} as const;

export const CommandBit = { memory: 0x2, busMaster: 0x4, interruptDisable: 0x400 } as const;

export const CapabilityId = { powerManagement: 0x01, msi: 0x05, pcie: 0x10, msix: 0x11 } as const;

export const ExtendedCapabilityId = { ari: 0x0e, sriov: 0x10 } as const;

/** Start of extended config space, and the end of all. */
export const EXTENDED_START = 0x100;
export const CONFIG_SIZE = 0x1000;

/** PCI Express capability, from its start. */
export const Pcie = { deviceCapabilities: 0x04, deviceControl: 0x08 } as const;
export const PcieBit = { flrCapable: 1 << 28, initiateFlr: 1 << 15 } as const;

/** MSI-X capability, from its start; a table entry is 16 bytes. */
export const Msix = { control: 0x02, table: 0x04, pendingBits: 0x08, entrySize: 16 } as const;
export const MsixBit = { tableSizeMask: 0x7ff, functionMask: 0x4000, enable: 0x8000 } as const;

/** SR-IOV extended capability, from its start. */
export const Sriov = {
  capabilities: 0x04,
  control: 0x08,
  initialVfs: 0x0c,
  totalVfs: 0x0e,
  numVfs: 0x10,
  functionDependencyLink: 0x12,
  firstVfOffset: 0x14,
  vfStride: 0x16,
  vfDeviceId: 0x1a,
  supportedPageSizes: 0x1c,
  systemPageSize: 0x20,
  vfBar0: 0x24,
} as const;
export const SriovBit = {
  vfEnable: 0x1,
  vfMemorySpaceEnable: 0x8,
  ariCapableHierarchy: 0x10,
} as const;
