// A VF as the guest sees it, whether the VMM attached it by itself (native) or it sits in a slot: a function that QEMU
// realised at launch and that stays dormant until the guest enables VFs.
//
//   dormant    VF Enable is 0. Vendor and Device ID read 0xffff, so that no scan finds it; the rest reads as a VF that is
//              up would, because QEMU reads some of it again at every reset.
//   coming up  VF Enable is 1, but the VF is not up, or failed to come up: all-ones, which is how Linux notices. A guest
//              that looks although it was to be paused (a busy QEMU may take longer than the guest's 100 ms) sees a slot
//              as dormant, and each look is drawn out: it is paused in the middle of looking, long before it uses a VF.
//   up         the hardware's config space, with what the standard says of VFs laid over it.

import { RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { walkCapabilities } from '../pci/capability-chain.ts';
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
import type { Observers } from './observer.ts';
import type {
  DeviceFunction,
  DmaWindow,
  Done,
  FunctionShape,
  FunctionWires,
  HostError,
  RegionShape,
} from './physical-device.ts';
import { type Hold, ServedFunction } from './served-function.ts';

/** What of the PF decides about a VF. */
export interface PfView {
  readonly observers?: Observers;
  /** VF Enable is set and this VF is one of NumVFs. */
  expects(vfIndex: number): boolean;
  readonly vfMemorySpaceEnable: boolean;
  /** VFs may still come up, and QEMU was, or will be, asked to pause the guest until they have. */
  readonly isGuestToBePaused: boolean;
  /** A hold that ends by itself. */
  drawOut(): Hold;
  failed(what: string, error: HostError): void;
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

/** What QEMU may read of a slot at any time without taking the function for broken. */
const NEVER_ALL_ONES: readonly Range[] = [
  { start: HEADER.command.offset, end: HEADER.revisionId.offset },
  { start: HEADER.bar0.offset, end: HEADER.cardbusCisPointer.offset },
  { start: HEADER.interruptLine.offset, end: HEADER_BYTES },
];

const VIRTUAL_CAPABILITIES: ReadonlyMap<number, number> = new Map<number, number>([
  [ExtendedCapabilityId.alternativeRoutingId, ARI_BYTES],
]);

export class VirtualFunction extends ServedFunction {
  readonly index: number;
  readonly #pf: PfView;
  readonly #trapped: readonly RegionShape[];
  readonly #config: ConfigSpace;
  #hardware: DeviceFunction | undefined;
  #active = false;
  /** Resets that the host has not finished. */
  #resets = 0;
  /** The last of them was the guest's own: nothing answers, Command included, which is how Linux sees it end. */
  #inFlr = false;
  /** Command as the guest or the glue wrote it last. */
  #command = 0;
  /** Offset of Power Management Control/Status in config space, where the VF has one. */
  readonly #powerControl: number | undefined;
  /** Power State as the guest wrote it last. */
  #powerState = 0;
  /** Power Management Capabilities, 0 without. */
  readonly #powerCapabilities: number;
  /** What the host was told of for the VF that it is opening. */
  #memoryOfHost: readonly DmaWindow[] = [];
  #placementLost = true;
  #resetsOfSlot = 0;
  /** A VMM maps its memory, by a carrier. */
  #hasCarrier = false;
  /** The enable that brought this VF up last; 0 before the first. */
  generation = 0;

  constructor(index: number, shape: FunctionShape, pf: PfView) {
    super(`vf${index}`, shape, pf.observers);
    this.index = index;
    this.#pf = pf;
    this.#trapped = shape.regions.map((region) => ({ ...region, mappable: [] }));
    const power = walkCapabilities(shape.config).find(
      ({ id }) => id === CapabilityId.powerManagement,
    );
    this.#powerControl = power && power.offset + POWER_MANAGEMENT.controlStatus.offset;
    this.#powerCapabilities =
      power === undefined
        ? 0
        : registerIn(shape.config, power.offset, POWER_MANAGEMENT.capabilities);
    this.#config = this.#composeConfig();
  }

  /** `absent`, `coming-up` or `up`: for people. */
  get state(): 'absent' | 'coming-up' | 'up' {
    if (this.#up) {
      return 'up';
    }
    return this.#pf.expects(this.index) ? 'coming-up' : 'absent';
  }

  /** A slot's BARs in QEMU are empty: they were never placed, or a reset emptied them. */
  get placementLost(): boolean {
    return this.#placementLost;
  }

  /** The slot is about to be placed; what this gives is called when it is. A reset in between leaves it lost. */
  beginPlacement(): () => void {
    const resets = this.#resetsOfSlot;
    return () => {
      if (resets === this.#resetsOfSlot) {
        this.#placementLost = false;
      }
    };
  }

  /** In a slot nothing is mapped: a doorbell in a mapped BAR would never be heard of, nor would a disabled VF fall silent. */
  override region(index: number): RegionShape {
    const region = super.region(index);
    return this.isSlot ? this.#trapped[index]! : region;
  }

  /** The client's memory, for the host to give to the VF when it opens it: `bringUp` makes up for what changes until then. */
  handMemoryToHost(): readonly DmaWindow[] {
    this.#memoryOfHost = this.reachableMemory;
    return this.#memoryOfHost;
  }

  /** Wires up a VF that the host has opened; the guest does not see it before `activate`. */
  bringUp(generation: number, open: (wires: FunctionWires) => DeviceFunction): void {
    this.generation = generation;
    this.#hardware = open(this.wires());
    this.#writeCommandToHardware();
    this.replayOnto(this.#hardware, this.#memoryOfHost);
    this.#memoryOfHost = [];
  }

  activate(): void {
    // The glue writes a slot's Command anew at each enable, maybe since the VF was brought up.
    this.#writeCommandToHardware();
    this.#active = true;
  }

  deactivate(): void {
    this.#active = false;
  }

  /** The host is about to close the VF. */
  takeDown(): void {
    this.#active = false;
    this.#resets = 0;
    if (this.#hardware === undefined) {
      return;
    }
    this.withdrawFrom(this.#hardware);
    this.#hardware.close();
    this.#hardware = undefined;
  }

  protected override get hardware(): DeviceFunction | undefined {
    return this.#hardware;
  }

  protected override get decodesMemory(): boolean {
    return this.#up && this.#resets === 0 && this.#pf.vfMemorySpaceEnable;
  }

  /** It is up, and answers in memory. */
  get decodes(): boolean {
    return this.#up && this.#pf.vfMemorySpaceEnable;
  }

  /** Its memory is mapped over the slot. */
  get hasCarrier(): boolean {
    return this.#hasCarrier;
  }

  /** What its carrier has mapped of a BAR. */
  memoryFile(bar: number): { readonly fd: number; readonly offset: bigint } | undefined {
    return this.#up ? this.#hardware?.regionFile(bar) : undefined;
  }

  /**
   * The memory of a physical VF faults in D3hot, and a fault in mapped memory ends QEMU: the hardware stays in D0 for as
   * long as a carrier is there, whatever the guest writes.
   */
  carrierAttached(isAttached: boolean): void {
    this.#hasCarrier = isAttached;
    this.#writePowerStateToHardware();
  }

  protected override readConfig(offset: number, into: Uint8Array): void {
    if (this.#up) {
      if (this.#resets === 0) {
        this.#config.read(offset, into.length, into);
      } else if (this.#inFlr) {
        into.fill(0xff);
      } else {
        this.#readAllOnes(offset, into);
      }
    } else if (this.#pf.expects(this.index) && this.revealed && !this.#isSeenEarly) {
      this.#readAllOnes(offset, into);
    } else {
      this.#readDormant(offset, into);
    }
  }

  protected override writeConfig(offset: number, from: Uint8Array): void {
    if (this.#up && this.#resets === 0) {
      this.#config.write(offset, from);
      return;
    }
    // The glue places a slot before the VF is shown to the guest: Command is kept for when it is.
    from.forEach((byte, i) => {
      this.#keepByte(offset + i, byte);
    });
  }

  /** QEMU resets slots one after the other with its big lock held: answered at once, the work is done behind it. */
  protected override resetFunction(done: Done): void {
    this.#forgetKept();
    this.#inFlr = false;
    this.#reset();
    done();
  }

  protected override clientGone(): void {
    this.#forgetKept();
  }

  #forgetKept(): void {
    this.#command = 0;
    this.#powerState = 0;
    this.#placementLost = true;
    this.#resetsOfSlot++;
  }

  get #up(): boolean {
    return this.#active && this.#hardware !== undefined;
  }

  protected override hostFailed(what: string, error: HostError): void {
    this.#pf.failed(what, error);
  }

  /** A slot's Memory Space Enable is not the guest's, so that nobody would set it again. */
  #functionLevelReset(): void {
    this.observers.reset(this.name, 'function');
    this.#command &= this.isSlot ? MEMORY_SPACE_ENABLE : 0;
    this.#inFlr = true;
    this.#reset();
  }

  override holdRead(region: number): Hold | undefined {
    const isLook = region === RegionIndex.config && !this.#up && this.revealed;
    if (!isLook || !this.#pf.expects(this.index) || !this.#isSeenEarly) {
      return undefined;
    }
    return this.#pf.drawOut();
  }

  get #isSeenEarly(): boolean {
    return this.isSlot && this.#pf.isGuestToBePaused;
  }

  #reset(): void {
    const hardware = this.#hardware;
    if (hardware === undefined) {
      return;
    }
    this.#resets++;
    hardware.reset((error) => {
      if (hardware !== this.#hardware) {
        return;
      }
      this.#resets--;
      if (error !== undefined) {
        this.hostFailed(`reset of ${this.name}`, error);
      }
      // A host that resets a function gives it back with the Command that it had before.
      this.#writeCommandToHardware();
    });
  }

  #readAllOnes(offset: number, into: Uint8Array): void {
    this.#readDormant(offset, into);
    for (let i = 0; i < into.length; i++) {
      if (!NEVER_ALL_ONES.some(({ start, end }) => offset + i >= start && offset + i < end)) {
        into[i] = 0xff;
      }
    }
  }

  /** The image of a VF that is up; real IDs until QEMU has realised the slot, which refuses a function without. */
  #readDormant(offset: number, into: Uint8Array): void {
    for (let i = 0; i < into.length; i++) {
      const at = offset + i;
      if (this.revealed && at < HEADER.command.offset) {
        into[i] = 0xff;
      } else if (at === HEADER.command.offset) {
        into[i] = this.#command & 0xff;
      } else if (at === HEADER.command.offset + 1) {
        into[i] = this.#command >>> 8;
      } else {
        into[i] = this.shape.config[at] ?? 0;
      }
      if (at === this.#powerControl) {
        into[i] = this.#withPowerState(into[i]!);
      }
    }
  }

  #keepByte(at: number, byte: number): void {
    if (at === HEADER.command.offset) {
      this.#command = (this.#command & 0xff00) | byte;
    } else if (at === HEADER.command.offset + 1) {
      this.#command = (this.#command & 0xff) | (byte << 8);
    } else if (at === this.#powerControl) {
      const written = byte & POWER_STATE;
      this.#powerState = powerStateAfter(written, this.#powerState, this.#powerCapabilities);
    }
  }

  #writeCommandToHardware(): void {
    this.#hardware?.writeConfig(HEADER.command.offset, 2, this.#command);
  }

  #writePowerStateToHardware(): void {
    const power = this.#powerControl;
    if (power === undefined || this.#hardware === undefined || this.#resets > 0) {
      return;
    }
    const control = this.#hardware.readConfig(power, 2) & ~POWER_STATE;
    this.#hardware.writeConfig(power, 2, control | (this.#hasCarrier ? 0 : this.#powerState));
  }

  #composeConfig(): ConfigSpace {
    const power = this.#powerControl;
    const layout = hardwareLayout(
      this.shape.config,
      VF_CAPABILITIES,
      [
        ...HEADER_HOLES,
        ...rangesOf(this.shape.config, VIRTUAL_CAPABILITIES),
        ...(power === undefined ? [] : [{ start: power, end: power + 2 }]),
      ],
      {
        read: (offset, length) => this.#hardware!.readConfig(offset, length),
        write: (offset, length, value) => this.#hardware!.writeConfig(offset, length, value),
      },
      () => this.#functionLevelReset(),
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
      const block = new RegisterBlock(ARI, { length: ARI_BYTES, reset: { header } });
      owners.push({
        offset,
        length: ARI_BYTES,
        read: (at, length) => block.read(at, length),
        write: () => {},
      });
    });
    return new ConfigSpace(this.shape.config.length, owners);
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
        const hardware = this.#hardware!.readConfig(offset + at, length);
        if (at !== 0) {
          return hardware;
        }
        const memory = this.isSlot ? this.#command & MEMORY_SPACE_ENABLE : 0;
        return (hardware & ~MEMORY_SPACE_ENABLE) | memory;
      },
      write: (at, length, value) => {
        for (let lane = 0; lane < length; lane++) {
          this.#keepByte(offset + at + lane, (value >>> (8 * lane)) & 0xff);
        }
        this.#writeCommandToHardware();
      },
    };
  }

  /**
   * In a slot, Power State reads as it was written, whatever reset the VF since: QEMU 11.1 unmaps the BARs of a function
   * by its own copy, and a guest that finds D0 already would not write it, so that they stayed unmapped.
   */
  #powerOwner(offset: number): ConfigOwner {
    return {
      offset,
      length: 2,
      read: (at, length) => {
        const hardware = this.#hardware!.readConfig(offset + at, length);
        return at === 0 ? this.#withPowerState(hardware) : hardware;
      },
      write: (at, length, value) => {
        this.#keepByte(offset + at, value & 0xff);
        const isVirtual = at === 0 && this.#hasCarrier;
        this.#hardware!.writeConfig(offset + at, length, isVirtual ? value & ~POWER_STATE : value);
      },
    };
  }

  #withPowerState(value: number): number {
    return this.isSlot ? (value & ~POWER_STATE) | this.#powerState : value;
  }
}

/** A VF has no IDs of its own: the guest takes them from the PF. PCIe Base 4.0, "Vendor ID Register Changes". */
const IDS: ConfigOwner = {
  offset: HEADER.vendorId.offset,
  length: 4,
  read: (_offset, length) => 2 ** (8 * length) - 1,
  write: () => {},
};
