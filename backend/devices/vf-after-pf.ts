// A VF where a text has only its PF: what the standard says that a VF has of its PF, and nothing else. Its MSI-X table is as
// long as the PF's, and at the same place. Pure.

import { barType } from '../pci/bars.ts';
import { patchedImage } from '../pci/capability-chain.ts';
import { registerIn } from '../pci/registers.ts';
import { CapabilityId, ExtendedCapabilityId } from '../pci/spec/capability-ids.ts';
import { BAR_REGISTERS, HEADER, type VF_HEADER } from '../pci/spec/header.ts';
import { SRIOV, VF_BAR_REGISTERS } from '../pci/spec/sriov.ts';
import { type LspciFunction, LspciTextError } from './lspci-text.ts';

const INHERITED = {
  standard: new Set<number>([CapabilityId.pciExpress, CapabilityId.msix]),
  extended: new Set<number>([ExtendedCapabilityId.alternativeRoutingId]),
};
/** What is 0 in a VF, or all-ones: PCIe Base 4.0, "VF Configuration Space Header" differences. */
const ZERO = [
  ...['command', 'cacheLineSize', 'cardbusCisPointer'],
  ...['expansionRomBase', 'interruptLine', 'interruptPin'],
  ...BAR_REGISTERS,
] as const satisfies readonly (keyof typeof VF_HEADER)[];
const ONES = ['vendorId', 'deviceId'] as const;

/** `sriov`: where the PF has the capability; `sizes` by VF BAR, in bytes. @throws LspciTextError for a BAR that the PF does not name */
export function vfAfter(
  { config: pf, address, line }: LspciFunction,
  sriov: number,
  sizes: ReadonlyMap<number, number>,
): LspciFunction {
  const config = patchedImage(pf, INHERITED);
  for (const name of ZERO) {
    const { offset, bytes } = HEADER[name];
    config.fill(0, offset, offset + bytes);
  }
  for (const name of ONES) {
    const { offset, bytes } = HEADER[name];
    config.fill(0xff, offset, offset + bytes);
  }
  const regions = [...sizes].map(([index, size]) => {
    const name = VF_BAR_REGISTERS[index];
    const register = name === undefined ? 0 : registerIn(pf, sriov, SRIOV[name]);
    if (register === 0) {
      throw new LspciTextError(line, `${address} has no VF BAR ${index}`);
    }
    const { kind, prefetchable } = barType(register);
    return { index, size, isIo: false, is64Bit: kind === 'memory64', prefetchable };
  });
  return { address: `a VF of ${address}`, line, regions, config };
}
