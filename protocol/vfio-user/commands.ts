// The numbers of the vfio-user standard: commands, and the PCI indexes of regions and interrupts.
// Source: QEMU's docs/interop/vfio-user.rst, "Commands"; linux/vfio.h for the PCI indexes.

import { hotplugName } from '../hotplug/commands.ts';

/** Command numbers. 11 and 12 go from server to client, all others from client to server. */
export const Command = {
  version: 1,
  dmaMap: 2,
  dmaUnmap: 3,
  deviceGetInfo: 4,
  deviceGetRegionInfo: 5,
  deviceGetRegionIoFds: 6,
  deviceGetIrqInfo: 7,
  deviceSetIrqs: 8,
  regionRead: 9,
  regionWrite: 10,
  dmaRead: 11,
  dmaWrite: 12,
  deviceReset: 13,
  regionWriteMulti: 15,
  deviceFeature: 16,
} as const;
export type Command = (typeof Command)[keyof typeof Command];

const names = new Map<number, string>(
  Object.entries(Command).map(([key, number]) => [
    number,
    key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase(),
  ]),
);

/** A command's name in the standard ("REGION_READ") or in the extension ("VfPlug"), or "command 0x9001" for one in neither. */
export function commandName(command: number): string {
  return names.get(command) ?? hotplugName(command) ?? `command 0x${command.toString(16)}`;
}

/** Region indexes of a PCI device. */
export const RegionIndex = {
  bar0: 0,
  bar1: 1,
  bar2: 2,
  bar3: 3,
  bar4: 4,
  bar5: 5,
  rom: 6,
  config: 7,
  vga: 8,
} as const;
export type RegionIndex = (typeof RegionIndex)[keyof typeof RegionIndex];

/** Interrupt indexes of a PCI device. */
export const IrqIndex = { intx: 0, msi: 1, msix: 2, err: 3, req: 4 } as const;
export type IrqIndex = (typeof IrqIndex)[keyof typeof IrqIndex];
