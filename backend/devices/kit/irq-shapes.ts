// The interrupts that every PCI function has at its indexes, by how many vectors it has of each kind.

import { IrqIndex } from '../../../protocol/vfio-user/commands.ts';
import { IrqInfoFlag } from '../../../protocol/vfio-user/messages.ts';
import type { IrqShape } from '../../device/physical-device.ts';
import { findCapability } from '../../pci/capability-chain.ts';
import { msixPlaces } from '../../pci/msix-places.ts';
import { fieldOf, registerIn } from '../../pci/registers.ts';
import { CapabilityId } from '../../pci/spec/capability-ids.ts';
import { MSI_32 } from '../../pci/spec/msi.ts';

/** INTx is one or none; `err` and `req` are how a VMM hears of the host. */
export function irqShapes(hasIntx: boolean, msiVectors: number, msixVectors: number): IrqShape[] {
  const { eventFd, noResize, maskable, autoMasked } = IrqInfoFlag;
  return [
    { index: IrqIndex.intx, count: hasIntx ? 1 : 0, flags: eventFd | maskable | autoMasked },
    { index: IrqIndex.msi, count: msiVectors, flags: eventFd | noResize },
    { index: IrqIndex.msix, count: msixVectors, flags: eventFd | noResize },
    { index: IrqIndex.err, count: 1, flags: eventFd | noResize },
    { index: IrqIndex.req, count: 1, flags: eventFd | noResize },
  ];
}

/** How many vectors of each kind a config space says that its function has; 0 without the capability. */
export function vectorsOf(config: Uint8Array): { readonly msi: number; readonly msix: number } {
  const msi = findCapability(config, CapabilityId.msi);
  const control = msi === undefined ? 0 : registerIn(config, msi.offset, MSI_32.messageControl);
  const capable = fieldOf(MSI_32.messageControl, 'multipleMessageCapable', control);
  return { msi: msi === undefined ? 0 : 2 ** capable, msix: msixPlaces(config)?.vectors ?? 0 };
}
