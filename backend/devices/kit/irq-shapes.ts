// The interrupts that every PCI function has at its indexes, by how many vectors it has of each kind.

import { IrqIndex } from '../../../protocol/vfio-user/commands.ts';
import { IrqInfoFlag } from '../../../protocol/vfio-user/messages.ts';
import type { IrqShape } from '../../device/physical-device.ts';

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
