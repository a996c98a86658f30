// How many interrupts by message a function can raise. Pure.

import { findCapability } from './capability-chain.ts';
import { msixPlaces } from './msix-places.ts';
import { fieldOf, registerIn } from './registers.ts';
import { CapabilityId } from './spec/capability-ids.ts';
import { MSI_32 } from './spec/msi.ts';

/** How many vectors of each kind a config space says that its function has; 0 without the capability. */
export function vectorsOf(config: Uint8Array): { readonly msi: number; readonly msix: number } {
  const msi = findCapability(config, CapabilityId.msi);
  const control = msi === undefined ? 0 : registerIn(config, msi.offset, MSI_32.messageControl);
  const capable = fieldOf(MSI_32.messageControl, 'multipleMessageCapable', control);
  return { msi: msi === undefined ? 0 : 2 ** capable, msix: msixPlaces(config)?.vectors ?? 0 };
}
