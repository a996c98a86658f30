// Where the glue writes in config space, and what: offsets and bits of the PCI standards (PCI Local Bus 3.0, "Configuration
// Space"; PCIe Base 4.0, "Type 1 Configuration Space Header" and "PCI Express Capability Structure"). The VMM's side has
// numbers of its own, as any VMM has; the backend's are in backend/pci/spec.

/** Headers of type 0 and 1. */
export const Header = {
  command: 0x04,
  bar0: 0x10,
  capabilitiesPointer: 0x34,
  /** Where the first capability may begin. */
  end: 0x40,
} as const;

export const CommandBit = { memorySpaceEnable: 0x0002, busMasterEnable: 0x0004 } as const;

/** A bridge's bus numbers, of which the second byte is the bus behind it, and its prefetchable window. */
export const BridgeHeader = {
  busNumbers: 0x18,
  prefetchableBaseLimit: 0x24,
  prefetchableBaseUpper: 0x28,
  prefetchableLimitUpper: 0x2c,
} as const;

/** PCI Express capability: its ID, and a register from its start. */
export const PciExpress = { id: 0x10, slotControl: 0x18 } as const;
