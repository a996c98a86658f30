// The config space of a VF in its three images (virtual-function.ts says when the guest sees which), and what of it is not
// the hardware's: IDs, Command, the power state, ARI.

import { type BarShape, barAddressIn } from '../pci/bars.ts';
import { findCapability } from '../pci/capability-chain.ts';
import { type ConfigOwner, ConfigSpace } from '../pci/config-space.ts';
import { powerStateAfter } from '../pci/power-state.ts';
import { RegisterBlock } from '../pci/register-block.ts';
import { maskOf, registerIn } from '../pci/registers.ts';
import { ARI, ARI_BYTES, ARI_VERSION } from '../pci/spec/ari.ts';
import { CapabilityId, ExtendedCapabilityId, VF_CAPABILITIES } from '../pci/spec/capability-ids.ts';
import { extendedHeader } from '../pci/spec/extended-header.ts';
import { HEADER, HEADER_BYTES } from '../pci/spec/header.ts';
import { POWER_MANAGEMENT } from '../pci/spec/power-management.ts';
import { hardwareLayout, type Range, rangesOf } from './hardware-config.ts';
import type { DeviceFunction } from './physical-device.ts';

/** What of the VF decides about its config space. */
export interface VfView {
  isSlot(): boolean;
  /** Its client has seen that there is a function. */
  isRevealed(): boolean;
  /** A VMM has its memory mapped, or may have. */
  isMapped(): boolean;
  /** The VMM maps the slot, after it was not mapped, or does not any more. */
  slotChanged(): void;
  hardware(): DeviceFunction | undefined;
  /** The guest has asked for one. */
  functionLevelReset(): void;
}

const MEMORY_SPACE_ENABLE = maskOf(HEADER.command, 'memorySpaceEnable');
const POWER_STATE = maskOf(POWER_MANAGEMENT.controlStatus, 'powerState');

/** Header bytes that are not the hardware's: IDs, Command, BARs to CIS pointer, ROM, and interrupt registers. */
const HEADER_HOLES: readonly Range[] = [
  { start: HEADER.vendorId.offset, end: HEADER.status.offset },
  { start: HEADER.bar0.offset, end: HEADER.subsystemVendorId.offset },
  { start: HEADER.expansionRomBase.offset, end: HEADER.capabilitiesPointer.offset },
  { start: HEADER.interruptLine.offset, end: HEADER_BYTES },
];

const BARS: Range = { start: HEADER.bar0.offset, end: HEADER.cardbusCisPointer.offset };

/** What QEMU may read of a slot at any time without taking the function for broken. */
const NEVER_ALL_ONES: readonly Range[] = [
  { start: HEADER.command.offset, end: HEADER.revisionId.offset },
  BARS,
  { start: HEADER.interruptLine.offset, end: HEADER_BYTES },
];

const VIRTUAL_CAPABILITIES: ReadonlyMap<number, number> = new Map<number, number>([
  [ExtendedCapabilityId.alternativeRoutingId, ARI_BYTES],
]);

export class VfConfig {
  readonly #image: Uint8Array;
  readonly #view: VfView;
  readonly #space: ConfigSpace;
  /** Command as the guest or the glue wrote it last. */
  #command = 0;
  /** BARs as they were written last: a slot's VMM maps it by them. */
  readonly #bars = new Uint8Array(BARS.end - BARS.start);
  /** Offset of Power Management Control/Status in config space, where the VF has one. */
  readonly #powerControl: number | undefined;
  /** Power State as the guest wrote it last. */
  #powerState = 0;
  /** Power Management Capabilities, 0 without. */
  readonly #powerCapabilities: number;

  /** `image`: as the hardware reads when it has been reset. */
  constructor(image: Uint8Array, view: VfView) {
    this.#image = image;
    this.#view = view;
    const power = findCapability(image, CapabilityId.powerManagement);
    this.#powerControl = power && power.offset + POWER_MANAGEMENT.controlStatus.offset;
    this.#powerCapabilities =
      power === undefined ? 0 : registerIn(image, power.offset, POWER_MANAGEMENT.capabilities);
    this.#space = this.#compose();
  }

  /** Of a VF that is up. */
  read(offset: number, into: Uint8Array): void {
    this.#space.read(offset, into.length, into);
  }

  /** To a VF that is up. */
  write(offset: number, from: Uint8Array): void {
    this.#keepBars(offset, from);
    this.#space.write(offset, from);
  }

  /** The glue places a slot before the VF is shown to the guest: Command is kept for when it is. */
  keep(offset: number, from: Uint8Array): void {
    this.#keepBars(offset, from);
    from.forEach((byte, i) => {
      this.#keepByte(offset + i, byte);
    });
  }

  /** The slot was reset, or its client has gone. */
  forgetKept(): void {
    this.#command = 0;
    this.#powerState = 0;
    this.#bars.fill(0);
  }

  /** A slot's Memory Space Enable is not the guest's, so that nobody would set it again; QEMU goes by its own Power State. */
  forgetKeptOfGuest(): void {
    if (this.#view.isSlot()) {
      this.#command &= MEMORY_SPACE_ENABLE;
    } else {
      this.#command = 0;
      this.#powerState = 0;
    }
  }

  /** Whether any BAR of the slot was written since its reset. */
  get hasBars(): boolean {
    return this.#bars.some((byte) => byte !== 0);
  }

  /** The address that the slot's VMM has for a BAR. */
  slotAddress(bar: BarShape): bigint {
    return barAddressIn(this.#bars, bar);
  }

  #keepBars(offset: number, from: Uint8Array): void {
    from.forEach((byte, i) => {
      const at = offset + i;
      if (at >= BARS.start && at < BARS.end) {
        this.#bars[at - BARS.start] = byte;
      }
    });
  }

  /** As a function that does not answer, but for what QEMU may read at any time. */
  readAllOnes(offset: number, into: Uint8Array): void {
    this.readDormant(offset, into);
    for (let i = 0; i < into.length; i++) {
      if (!NEVER_ALL_ONES.some(({ start, end }) => offset + i >= start && offset + i < end)) {
        into[i] = 0xff;
      }
    }
  }

  /** The image of a VF that is up; real IDs until QEMU has realised the slot, which refuses a function without. */
  readDormant(offset: number, into: Uint8Array): void {
    for (let i = 0; i < into.length; i++) {
      const at = offset + i;
      if (this.#view.isRevealed() && at < HEADER.command.offset) {
        into[i] = 0xff;
      } else if (at === HEADER.command.offset) {
        into[i] = this.#command & 0xff;
      } else if (at === HEADER.command.offset + 1) {
        into[i] = this.#command >>> 8;
      } else {
        into[i] = this.#image[at] ?? 0;
      }
      if (at === this.#powerControl) {
        into[i] = this.#withPowerState(into[i]!);
      }
    }
  }

  #keepByte(at: number, byte: number): void {
    const wasShown = this.isShown;
    this.#keep(at, byte);
    if (wasShown !== this.isShown) {
      this.#view.slotChanged();
    }
  }

  /** Whether QEMU shows the slot's BARs, which it decides by its own copies. */
  get isShown(): boolean {
    return this.memoryEnabled && this.#powerState === 0;
  }

  #keep(at: number, byte: number): void {
    if (at === HEADER.command.offset) {
      this.#command = (this.#command & 0xff00) | byte;
    } else if (at === HEADER.command.offset + 1) {
      this.#command = (this.#command & 0xff) | (byte << 8);
    } else if (at === this.#powerControl) {
      const written = byte & POWER_STATE;
      this.#powerState = powerStateAfter(written, this.#powerState, this.#powerCapabilities);
    }
  }

  /** Command as the guest or the glue wrote it last: a slot's VMM has it so, too. */
  get command(): number {
    return this.#command;
  }

  /** Memory Space Enable as the guest or the glue wrote it last: a slot's VMM has it so, too. */
  get memoryEnabled(): boolean {
    return (this.#command & MEMORY_SPACE_ENABLE) !== 0;
  }

  /** Gives the hardware the Command that it should have. */
  writeCommandToHardware(): void {
    this.#view.hardware()?.writeConfig(HEADER.command.offset, 2, this.#command);
  }

  /** Gives the hardware the Power State that it should have: D0 while a VMM may have mapped it. */
  writePowerStateToHardware(): void {
    const power = this.#powerControl;
    const hardware = this.#view.hardware();
    if (power === undefined || hardware === undefined) {
      return;
    }
    const control = hardware.readConfig(power, 2) & ~POWER_STATE;
    hardware.writeConfig(power, 2, control | (this.#view.isMapped() ? 0 : this.#powerState));
  }

  #compose(): ConfigSpace {
    const power = this.#powerControl;
    const layout = hardwareLayout(
      this.#image,
      VF_CAPABILITIES,
      [
        ...HEADER_HOLES,
        ...rangesOf(this.#image, VIRTUAL_CAPABILITIES),
        ...(power === undefined ? [] : [{ start: power, end: power + 2 }]),
      ],
      {
        read: (offset, length) => this.#view.hardware()!.readConfig(offset, length),
        write: (offset, length, value) => this.#view.hardware()!.writeConfig(offset, length, value),
      },
      () => this.#view.functionLevelReset(),
    );
    const owners: ConfigOwner[] = [...layout.owners, IDS, this.#commandOwner()];
    if (power !== undefined) {
      owners.push(this.#powerOwner(power));
    }
    layout.extended.forEach(({ id, offset }, position) => {
      if (id !== ExtendedCapabilityId.alternativeRoutingId) {
        return;
      }
      const next = layout.extended[position + 1]?.offset ?? 0;
      const header = extendedHeader(id, ARI_VERSION, next);
      const block = RegisterBlock.of(ARI, { length: ARI_BYTES, reset: { header } });
      owners.push({
        offset,
        length: ARI_BYTES,
        read: (at, length) => block.read(at, length),
        write: () => {},
      });
    });
    return new ConfigSpace(this.#image.length, owners);
  }

  /**
   * In a slot, Memory Space Enable reads as it was written: QEMU maps the BAR by its own copy of Command, and a guest
   * that reads, changes and writes the register must not unmap it. Natively it reads 0, as the standard says.
   */
  #commandOwner(): ConfigOwner {
    const { offset } = HEADER.command;
    return {
      offset,
      length: 2,
      read: (at, length) => {
        const hardware = this.#view.hardware()!.readConfig(offset + at, length);
        if (at !== 0) {
          return hardware;
        }
        const memory = this.#view.isSlot() ? this.#command & MEMORY_SPACE_ENABLE : 0;
        return (hardware & ~MEMORY_SPACE_ENABLE) | memory;
      },
      write: (at, length, value) => {
        for (let lane = 0; lane < length; lane++) {
          this.#keepByte(offset + at + lane, (value >>> (8 * lane)) & 0xff);
        }
        this.writeCommandToHardware();
      },
    };
  }

  /**
   * Power State reads as it was written, in a slot whatever reset the VF since: QEMU 11.1 unmaps the BARs of a function
   * by its own copy, and a guest that finds D0 already would not write it, so that they stayed unmapped.
   */
  #powerOwner(offset: number): ConfigOwner {
    return {
      offset,
      length: 2,
      read: (at, length) => {
        const hardware = this.#view.hardware()!.readConfig(offset + at, length);
        return at === 0 ? this.#withPowerState(hardware) : hardware;
      },
      write: (at, length, value) => {
        this.#keepByte(offset + at, value & 0xff);
        const isVirtual = at === 0 && this.#view.isMapped();
        this.#view
          .hardware()!
          .writeConfig(offset + at, length, isVirtual ? value & ~POWER_STATE : value);
      },
    };
  }

  #withPowerState(value: number): number {
    return (value & ~POWER_STATE) | this.#powerState;
  }
}

/** A VF has no IDs of its own: the guest takes them from the PF. PCIe Base 4.0, "Vendor ID Register Changes". */
const IDS: ConfigOwner = {
  offset: HEADER.vendorId.offset,
  length: 4,
  read: (_offset, length) => 2 ** (8 * length) - 1,
  write: () => {},
};
