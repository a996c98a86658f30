// A device's description from what `lspci -vvv -xxxx` printed of a PF and one of its VFs. Registers that a driver had set are as
// after a reset. Pure.

import { loadUint, storeUint } from '../../protocol/little-endian.ts';
import { PAGE_BYTES } from '../../protocol/page.ts';
import { RegionIndex } from '../../protocol/vfio-user/commands.ts';
import {
  type DeviceDescription,
  type FunctionShape,
  type IrqShape,
  LINUX_MAKING_MILLISECONDS,
  type RegionShape,
} from '../device/physical-device.ts';
import { assertBarShapes, type BarShape, barRegisterValue, barType } from '../pci/bars.ts';
import { findExtendedCapability, walkCapabilities } from '../pci/capability-chain.ts';
import { type MsixPlace, msixPlaces } from '../pci/msix-places.ts';
import { maskOf, type Register, registerIn } from '../pci/registers.ts';
import { CapabilityId, ExtendedCapabilityId } from '../pci/spec/capability-ids.ts';
import { BAR_REGISTERS, EXTENDED_CONFIG_BYTES, HEADER } from '../pci/spec/header.ts';
import { standardLayout } from '../pci/spec/layouts.ts';
import { MSI_32 } from '../pci/spec/msi.ts';
import { MSIX } from '../pci/spec/msix.ts';
import { PCI_EXPRESS } from '../pci/spec/pcie.ts';
import { POWER_MANAGEMENT } from '../pci/spec/power-management.ts';
import { SRIOV, VF_BAR_REGISTERS } from '../pci/spec/sriov.ts';
import { vectorsOf } from '../pci/vectors.ts';
import { irqShapes } from './kit/irq-shapes.ts';
import { type LspciFunction, LspciTextError } from './lspci-text.ts';
import { idsOf, insistOnCard } from './profile-card.ts';
import { ProfileFault } from './profile-shapes.ts';
import { vfAfter } from './vf-after-pf.ts';

const REGIONS = 9;
const NO_IDS = 0xffff_ffff;

export interface LspciProfileOptions {
  /** What a person calls the card; else its address. */
  readonly name?: string | undefined;
  /** Sizes of VF BARs by index, in bytes, where the text has no VF: it is made after the PF then. */
  readonly vfBarSizes?: ReadonlyMap<number, number> | undefined;
}

/** @throws LspciTextError where the text lacks or contradicts something */
export function describeLspci(
  functions: readonly LspciFunction[],
  { name, vfBarSizes }: LspciProfileOptions = {},
): DeviceDescription {
  const pf = functions.find((each) => sriovOf(each.config) !== undefined);
  if (pf === undefined) {
    const line = functions[0]?.line ?? 1;
    throw new LspciTextError(
      line,
      'no function has an SR-IOV capability: use lspci -xxxx, as root',
    );
  }
  const sriov = sriovOf(pf.config)!;
  const vendorId = registerIn(pf.config, 0, HEADER.vendorId);
  const vfDeviceId = registerIn(pf.config, sriov, SRIOV.vfDeviceId);
  const vfIds = ((vfDeviceId << 16) | vendorId) >>> 0;
  const vf =
    functions.find((each) => each !== pf && [NO_IDS, vfIds].includes(idsOf(each.config))) ??
    (vfBarSizes === undefined ? undefined : vfAfter(pf, sriov, vfBarSizes));
  if (vf === undefined) {
    const how =
      'enable one before (echo 1 > sriov_numvfs), or say how large VF BARs are: --vf-bars=0:16K';
    throw new LspciTextError(pf.line, `the text has no VF of ${pf.address}; ${how}`);
  }
  const totalVfs = registerIn(pf.config, sriov, SRIOV.totalVfs);
  if (totalVfs === 0) {
    throw new LspciTextError(pf.line, `TotalVFs of ${pf.address} is 0`);
  }
  const pfBars = barsOf(pf, (index) => registerIn(pf.config, 0, HEADER[BAR_REGISTERS[index]!]));
  const vfBars = barsOf(vf, (index) =>
    registerIn(pf.config, sriov, SRIOV[VF_BAR_REGISTERS[index]!]),
  );
  const shapes = {
    pf: shapeOf(atReset(pf.config, pfBars), pfBars, pf),
    vf: shapeOf(atReset(withIds(vf.config, vfIds), vfBars), vfBars, vf),
  };
  try {
    insistOnCard(idsOf(pf.config), shapes.pf, shapes.vf);
  } catch (error) {
    if (error instanceof ProfileFault) {
      const { address, line } = error.place.startsWith('vf') ? vf : pf;
      throw new LspciTextError(line, `config space of ${address} ${error.what}`);
    }
    throw error;
  }
  return {
    name: name ?? pf.address,
    ...shapes,
    totalVfs,
    vfDeviceId,
    vfBars,
    leastMakingMilliseconds: LINUX_MAKING_MILLISECONDS,
  };
}

function sriovOf(config: Uint8Array): number | undefined {
  const { sriov } = ExtendedCapabilityId;
  return config.length < EXTENDED_CONFIG_BYTES
    ? undefined
    : findExtendedCapability(config, sriov)?.offset;
}

/** The regions' sizes; what kind each BAR is, its register says. */
function barsOf(
  { regions, address, line }: LspciFunction,
  register: (index: number) => number,
): BarShape[] {
  const bars = regions.map(({ index, size, isIo, is64Bit }) => {
    const { kind, prefetchable } = barType(register(index));
    const isSaid = isIo === (kind === 'io') && (isIo || is64Bit === (kind === 'memory64'));
    if (!isSaid) {
      const what = `region ${index} of ${address} is another kind of BAR than its register says`;
      throw new LspciTextError(line, what);
    }
    return { index, size, kind, prefetchable };
  });
  try {
    assertBarShapes(bars);
  } catch (error) {
    throw new LspciTextError(line, `regions of ${address}: ${(error as Error).message}`);
  }
  return bars;
}

/** A VF has no IDs of its own. */
function withIds(config: Uint8Array, ids: number): Uint8Array {
  const image = config.slice();
  storeUint(image, HEADER.vendorId.offset, 4, ids);
  return image;
}

/** Registers that a driver and the kernel have set, as they are when nobody has. */
function atReset(config: Uint8Array, bars: readonly BarShape[]): Uint8Array {
  const image = new Uint8Array(EXTENDED_CONFIG_BYTES);
  image.set(config);
  const zero = (offset: number, bytes: number): void => {
    image.fill(0, offset, offset + bytes);
  };
  const clear = (base: number, { offset, bytes }: Register, mask: number): void => {
    storeUint(image, base + offset, bytes, loadUint(image, base + offset, bytes) & ~mask);
  };
  zero(HEADER.command.offset, HEADER.command.bytes);
  zero(HEADER.bar0.offset, 4 * BAR_REGISTERS.length);
  zero(HEADER.expansionRomBase.offset, HEADER.expansionRomBase.bytes);
  zero(HEADER.interruptLine.offset, HEADER.interruptLine.bytes);
  for (const bar of bars) {
    storeUint(image, HEADER[BAR_REGISTERS[bar.index]!].offset, 4, barRegisterValue(bar));
  }
  for (const { id, offset } of walkCapabilities(image)) {
    if (id === CapabilityId.powerManagement) {
      const { controlStatus } = POWER_MANAGEMENT;
      clear(offset, controlStatus, maskOf(controlStatus, 'powerState'));
    } else if (id === CapabilityId.msi) {
      const control = registerIn(image, offset, MSI_32.messageControl);
      const { pendingBits, ...table } = standardLayout(id).table('pf', control);
      for (const register of Object.values(table)) {
        clear(offset, register, register.rw);
      }
      if (pendingBits !== undefined) {
        zero(offset + pendingBits.offset, pendingBits.bytes);
      }
    } else if (id === CapabilityId.msix) {
      clear(offset, MSIX.messageControl, MSIX.messageControl.rw);
    } else if (id === CapabilityId.pciExpress) {
      zero(offset + PCI_EXPRESS.deviceStatus.offset, PCI_EXPRESS.deviceStatus.bytes);
    }
  }
  const sriov = sriovOf(image);
  if (sriov !== undefined) {
    zero(sriov + SRIOV.control.offset, SRIOV.control.bytes);
    zero(sriov + SRIOV.numVfs.offset, SRIOV.numVfs.bytes);
  }
  return image;
}

function shapeOf(
  config: Uint8Array,
  bars: readonly BarShape[],
  { line, address }: LspciFunction,
): FunctionShape {
  const msix = msixPlaces(config);
  const table = msix?.table;
  for (const place of msix === undefined ? [] : [msix.table, msix.pendingBits]) {
    if (!bars.some(({ index, size }) => index === place.bar && place.end <= size)) {
      const what = place === table ? 'the MSI-X table' : 'the pending bits of MSI-X';
      throw new LspciTextError(line, `${what} of ${address} is in no region of it`);
    }
  }
  return {
    config,
    bars,
    regions: Array.from({ length: REGIONS }, (_, index) => regionOf(index, bars, table)),
    irqs: irqsOf(config),
  };
}

/** What may be mapped of a card in a file: memory that holds no MSI-X table. */
function regionOf(
  index: number,
  bars: readonly BarShape[],
  table: MsixPlace | undefined,
): RegionShape {
  const isConfig = index === RegionIndex.config;
  const bar = bars.find((each) => each.index === index);
  const size = isConfig ? EXTENDED_CONFIG_BYTES : (bar?.size ?? 0);
  const isMappable =
    bar !== undefined && bar.kind !== 'io' && size >= PAGE_BYTES && table?.bar !== index;
  return {
    index,
    size,
    readable: size > 0,
    writable: size > 0,
    mappable: isMappable ? [{ offset: 0, size }] : [],
  };
}

function irqsOf(config: Uint8Array): IrqShape[] {
  const { msi, msix } = vectorsOf(config);
  return irqShapes(registerIn(config, 0, HEADER.interruptPin) !== 0, msi, msix);
}
