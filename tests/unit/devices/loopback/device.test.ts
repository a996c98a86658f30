import { describe, expect, it } from 'vitest';
import { PF_INDEX } from '../../../../backend/device/physical-device.ts';
import {
  walkCapabilities,
  walkExtendedCapabilities,
} from '../../../../backend/pci/capability-chain.ts';
import { CapabilityId, ExtendedCapabilityId } from '../../../../backend/pci/spec/capability-ids.ts';
import { HEADER } from '../../../../backend/pci/spec/header.ts';
import { SRIOV } from '../../../../backend/pci/spec/sriov.ts';
import { IrqIndex, RegionIndex } from '../../../../protocol/vfio-user/commands.ts';
import { describeLoopback, loopbackDevice } from '../../../fakes/loopback.ts';

const OPTIONS = { totalVfs: 7, vfBarSize: 65_536, enableMilliseconds: 0 };
const { pf, vf, ...device } = describeLoopback(OPTIONS);

function standardIds(config: Uint8Array): number[] {
  return walkCapabilities(config).map(({ id }) => id);
}

function u16(config: Uint8Array, offset: number): number {
  return new DataView(config.buffer).getUint16(offset, true);
}

describe('what a loopback device looks like', () => {
  it('as a PF: PM, MSI, PCI Express, MSI-X; ARI, SR-IOV and AER', () => {
    const { powerManagement, msi, pciExpress, msix } = CapabilityId;
    expect(standardIds(pf.config)).toEqual([powerManagement, msi, pciExpress, msix]);
    expect(walkExtendedCapabilities(pf.config).map(({ id }) => id)).toEqual([
      ExtendedCapabilityId.alternativeRoutingId,
      ExtendedCapabilityId.sriov,
      ExtendedCapabilityId.advancedErrorReporting,
    ]);
  });

  it('as a VF: no MSI and no SR-IOV', () => {
    const { powerManagement, pciExpress, msix } = CapabilityId;
    expect(standardIds(vf.config)).toEqual([powerManagement, pciExpress, msix]);
    expect(walkExtendedCapabilities(vf.config).map(({ id }) => id)).toEqual([
      ExtendedCapabilityId.alternativeRoutingId,
      ExtendedCapabilityId.advancedErrorReporting,
    ]);
  });

  it('is told by the same IDs in its config space, its description and its SR-IOV capability', () => {
    const [, sriov] = walkExtendedCapabilities(pf.config);
    expect(u16(vf.config, HEADER.deviceId.offset)).toBe(device.vfDeviceId);
    expect(u16(pf.config, sriov!.offset + SRIOV.vfDeviceId.offset)).toBe(device.vfDeviceId);
    expect(u16(pf.config, HEADER.vendorId.offset)).toBe(u16(vf.config, HEADER.vendorId.offset));
    expect(u16(pf.config, sriov!.offset + SRIOV.totalVfs.offset)).toBe(7);
  });

  it('has regions and interrupts by their VFIO indexes', () => {
    for (const { regions, irqs } of [pf, vf]) {
      expect(regions.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
      expect(irqs.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4]);
      expect(regions[RegionIndex.config]!.size).toBe(4096);
      expect(irqs[IrqIndex.err]!.count).toBe(1);
    }
    expect(vf.regions[RegionIndex.bar0]!.size).toBe(65_536);
    expect(pf.irqs[IrqIndex.msix]!.count).toBe(8);
  });

  it('lets a VMM map its memory, never its registers or its MSI-X table', () => {
    for (const { regions } of [pf, vf]) {
      const [area] = regions[RegionIndex.bar0]!.mappable;
      expect(area!.offset).toBeGreaterThanOrEqual(0x2000);
      expect(area!.offset + area!.size).toBe(regions[RegionIndex.bar0]!.size);
    }
  });
});

describe('the host’s side of a loopback device', () => {
  it('makes as many VFs as are asked for, held by nobody else', async () => {
    const host = loopbackDevice(OPTIONS);
    const vfs = await host.createVfs(3);
    expect(vfs.map((handle) => handle.index)).toEqual([0, 1, 2]);
    expect(host.pf.index).toBe(PF_INDEX);
    expect(await host.releaseVfs()).toEqual([]);
    await host.destroyVfs();
    await host.close();
  });

  it('hands over what survives the way to another thread', async () => {
    const [handle] = await loopbackDevice(OPTIONS).createVfs(1);
    expect(structuredClone(handle)).toEqual(handle);
  });
});
