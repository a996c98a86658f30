// Where VFs and their slots belong, and what a VMM is told of each.

import type { GetSlots, Slot } from '../../protocol/hotplug/messages.ts';
import { vfRoutingIdOffset } from '../../protocol/launch/routing-id-spacing.ts';
import { IrqIndex } from '../../protocol/vfio-user/commands.ts';
import type { CarrierFunction } from '../device/carrier-function.ts';
import type { DeviceDescription } from '../device/physical-device.ts';
import type { PhysicalFunction } from '../device/physical-function.ts';
import type { VirtualFunction } from '../device/virtual-function.ts';
import { registerIn } from '../pci/registers.ts';
import { HEADER } from '../pci/spec/header.ts';
import type { VfFacts } from './channel.ts';

export interface VfPlacesOptions {
  readonly description: DeviceDescription;
  readonly pf: PhysicalFunction;
  readonly vfs: readonly VirtualFunction[];
  readonly carriers: readonly CarrierFunction[];
  /** Where the VF's carrier is served; undefined: nowhere. */
  carrierSocketPath?(vfIndex: number): string | undefined;
}

export class VfPlaces {
  readonly #options: VfPlacesOptions;

  constructor(options: VfPlacesOptions) {
    this.#options = options;
  }

  describe(vfIndex: number): VfFacts {
    const { description, pf, vfs } = this.#options;
    const vf = vfs[vfIndex]!;
    return {
      routingIdOffset: vfRoutingIdOffset(vfIndex),
      vendorId: registerIn(description.pf.config, 0, HEADER.vendorId),
      deviceId: description.vfDeviceId,
      bars: description.vfBars.map((bar) => ({
        index: bar.index,
        size: BigInt(bar.size),
        is64Bit: bar.kind === 'memory64',
        prefetchable: bar.prefetchable,
        address: pf.sriov.vfBarAddress(bar.index, vfIndex),
      })),
      msixVectors: description.vf.irqs[IrqIndex.msix]?.count ?? 0,
      placementLost: vf.placementLost,
      slotCommand: vf.slotCommand,
      ...this.#describeCarrier(vfIndex),
    };
  }

  /** Where these slots belong; none where the guest has put a BAR of the PF in the place of VFs that are off. */
  slots({ firstVf, count }: GetSlots): readonly Slot[] {
    if (this.#arePlacesTaken) {
      return [];
    }
    return this.#options.vfs.slice(firstVf, firstVf + count).map(({ index }) => {
      const { routingIdOffset, bars, placementLost, slotCommand } = this.describe(index);
      return { vfIndex: index, routingIdOffset, bars, placementLost, slotCommand };
    });
  }

  get #arePlacesTaken(): boolean {
    const { description, pf, vfs } = this.#options;
    const places = description.vfBars.map((bar) => {
      const address = pf.sriov.vfBarAddress(bar.index, 0);
      return { address, end: pf.sriov.vfBarAddress(bar.index, vfs.length) };
    });
    return description.pf.bars.some((bar) => {
      const address = pf.barAddress(bar);
      const end = address + BigInt(bar.size);
      return (
        bar.kind !== 'io' && places.some((place) => place.address < end && address < place.end)
      );
    });
  }

  /** The guest has given each BAR of VFs an address. */
  get haveAddresses(): boolean {
    const { description, pf } = this.#options;
    return description.vfBars.every(({ index }) => pf.sriov.vfBarAddress(index, 0) !== 0n);
  }

  /** Every slot is where its VF belongs, and answers. */
  get arePlaced(): boolean {
    const { description, pf, vfs } = this.#options;
    return vfs.every((vf) =>
      description.vfBars.every(
        (bar) => vf.slotAddress(bar) === pf.sriov.vfBarAddress(bar.index, vf.index),
      ),
    );
  }

  /** Whether glues are told of carriers. */
  get hasCarriers(): boolean {
    return 'carrier' in this.#describeCarrier(0);
  }

  #describeCarrier(vfIndex: number): Pick<VfFacts, 'carrier'> {
    const { carriers, vfs, carrierSocketPath } = this.#options;
    const pieces = carriers[vfIndex]?.pieces;
    const socketPath = carrierSocketPath?.(vfIndex);
    const isNeeded = !vfs[vfIndex]!.canRemap;
    if (pieces === undefined || socketPath === undefined || !isNeeded) {
      return {};
    }
    const bars = pieces.map(({ carrierBar, vfBar, offset, size }) => ({
      index: carrierBar,
      vfBar,
      offset: BigInt(offset),
      size: BigInt(size),
    }));
    return { carrier: { socketPath, bars } };
  }
}
