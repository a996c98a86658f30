import { describe, expect, it } from 'vitest';
import {
  type ChainPatch,
  planChain,
  walkCapabilities,
  walkExtendedCapabilities,
} from '../../../backend/pci/capability-chain.ts';
import {
  CapabilityId,
  ExtendedCapabilityId,
  PF_CAPABILITIES,
  VF_CAPABILITIES,
} from '../../../backend/pci/spec/capability-ids.ts';
import { extendedHeader } from '../../../backend/pci/spec/extended-header.ts';

type Link = [id: number, offset: number, next: number];

function image(standard: Link[], extended: Link[] = []): Uint8Array {
  const bytes = new Uint8Array(4096);
  const view = new DataView(bytes.buffer);
  bytes[0x06] = standard.length > 0 ? 0x10 : 0;
  bytes[0x34] = standard[0]?.[1] ?? 0;
  for (const [id, offset, next] of standard) {
    bytes.set([id, next], offset);
  }
  for (const [id, offset, next] of extended) {
    view.setUint32(offset, extendedHeader(id, 1, next), true);
  }
  return bytes;
}

function apply(bytes: Uint8Array, patches: readonly ChainPatch[]): Uint8Array {
  const patched = bytes.slice();
  for (const { offset, length, mask, value } of patches) {
    for (let lane = 0; lane < length; lane++) {
      const laneMask = (mask >>> (8 * lane)) & 0xff;
      const kept = patched[offset + lane]! & ~laneMask;
      patched[offset + lane] = kept | ((value >>> (8 * lane)) & laneMask);
    }
  }
  return patched;
}

const { powerManagement, msi, msix, pciExpress, advancedFeatures } = CapabilityId;
const aer = ExtendedCapabilityId.advancedErrorReporting;
const ari = ExtendedCapabilityId.alternativeRoutingId;
const ats = ExtendedCapabilityId.addressTranslationServices;
const sriov = ExtendedCapabilityId.sriov;

describe('walking', () => {
  it('gives both chains in order', () => {
    const bytes = image(
      [
        [powerManagement, 0x40, 0x70],
        [msix, 0x70, 0x50],
        [msi, 0x50, 0],
      ],
      [
        [aer, 0x100, 0x160],
        [sriov, 0x160, 0],
      ],
    );
    expect(walkCapabilities(bytes)).toEqual([
      { id: powerManagement, offset: 0x40, next: 0x70 },
      { id: msix, offset: 0x70, next: 0x50 },
      { id: msi, offset: 0x50, next: 0 },
    ]);
    expect(walkExtendedCapabilities(bytes)).toEqual([
      { id: aer, offset: 0x100, next: 0x160 },
      { id: sriov, offset: 0x160, next: 0 },
    ]);
  });

  it('ends where a chain comes back to itself', () => {
    const bytes = image(
      [
        [powerManagement, 0x40, 0x50],
        [msi, 0x50, 0x40],
      ],
      [
        [aer, 0x100, 0x140],
        [ari, 0x140, 0x100],
      ],
    );
    expect(walkCapabilities(bytes).map(({ offset }) => offset)).toEqual([0x40, 0x50]);
    expect(walkExtendedCapabilities(bytes).map(({ offset }) => offset)).toEqual([0x100, 0x140]);
  });

  it('ends where a pointer leads into the header', () => {
    const bytes = image([[msi, 0x50, 0x04]], [[aer, 0x100, 0x40]]);
    expect(walkCapabilities(bytes)).toHaveLength(1);
    expect(walkExtendedCapabilities(bytes)).toHaveLength(1);
  });

  it('ignores the low two bits of a pointer', () => {
    const bytes = image([[msi, 0x50, 0x73]]);
    bytes[0x70] = msix;
    expect(walkCapabilities(bytes).map(({ id }) => id)).toEqual([msi, msix]);
  });

  it('finds nothing in a function that is absent, empty or without extended space', () => {
    expect(walkCapabilities(new Uint8Array(4096).fill(0xff))).toEqual([]);
    expect(walkExtendedCapabilities(new Uint8Array(4096).fill(0xff))).toEqual([]);
    expect(walkCapabilities(image([]))).toEqual([]);
    expect(walkExtendedCapabilities(new Uint8Array(256))).toEqual([]);
    expect(walkCapabilities(new Uint8Array(0))).toEqual([]);
  });

  it('does not trust a pointer while Status says that there is no list', () => {
    const bytes = image([[msi, 0x50, 0]]);
    bytes[0x06] = 0;
    expect(walkCapabilities(bytes)).toEqual([]);
  });
});

describe('planning', () => {
  const hidden = image(
    [
      [advancedFeatures, 0x40, 0x50],
      [msi, 0x50, 0x60],
      [0x0c, 0x60, 0x70],
      [pciExpress, 0x70, 0x80],
      [advancedFeatures, 0x80, 0],
    ],
    [
      [aer, 0x100, 0x140],
      [ats, 0x140, 0x160],
      [sriov, 0x160, 0x1a0],
      [ExtendedCapabilityId.pasid, 0x1a0, 0],
    ],
  );

  it('links only what is allowed and names what it took out', () => {
    const plan = planChain(hidden, PF_CAPABILITIES);
    const guest = apply(hidden, plan.patches);
    expect(walkCapabilities(guest).map(({ id }) => id)).toEqual([msi, pciExpress]);
    expect(walkExtendedCapabilities(guest).map(({ id }) => id)).toEqual([aer, sriov]);
    expect(plan.unlinked.map(({ offset }) => offset)).toEqual([0x40, 0x60, 0x80]);
    expect(plan.unlinkedExtended.map(({ offset }) => offset)).toEqual([0x140, 0x1a0]);
  });

  it('leaves a VF without SR-IOV', () => {
    const guest = apply(hidden, planChain(hidden, VF_CAPABILITIES).patches);
    expect(walkExtendedCapabilities(guest).map(({ id }) => id)).toEqual([aer]);
  });

  it('puts a null capability at 0x100 where the head is not allowed', () => {
    const bytes = image(
      [],
      [
        [ats, 0x100, 0x140],
        [ari, 0x140, 0],
      ],
    );
    const guest = apply(bytes, planChain(bytes, PF_CAPABILITIES).patches);
    expect(new DataView(guest.buffer).getUint32(0x100, true)).toBe(0x1400_0000);
    expect(walkExtendedCapabilities(guest)).toEqual([{ id: ari, offset: 0x140, next: 0 }]);
  });

  it('empties both chains where nothing is allowed', () => {
    const nothing = { standard: new Set<number>(), extended: new Set<number>() };
    const guest = apply(hidden, planChain(hidden, nothing).patches);
    expect(walkCapabilities(guest)).toEqual([]);
    expect(new DataView(guest.buffer).getUint32(0x100, true)).toBe(0);
  });

  it('patches nothing past the end of a space of 256 bytes', () => {
    const { patches } = planChain(hidden.slice(0, 256), PF_CAPABILITIES);
    expect(patches.every(({ offset }) => offset < 256)).toBe(true);
  });
});
