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
import type { BarShape } from '../pci/bars.ts';
import type { Later } from './client-memory.ts';
import type { Faults } from './faults.ts';
import type { Hold } from './hold.ts';
import type { Observers } from './observer.ts';
import type {
  DeviceFunction,
  Done,
  FunctionShape,
  FunctionWires,
  HostError,
  RegionShape,
} from './physical-device.ts';
import { ServedFunction } from './served-function.ts';
import { VfConfig } from './vf-config.ts';

/** What of the PF decides about a VF. */
export interface PfView {
  readonly observers?: Observers;
  readonly faults?: Faults | undefined;
  /** VF Enable is set and this VF is one of NumVFs. */
  expects(vfIndex: number): boolean;
  readonly vfMemorySpaceEnable: boolean;
  /** VFs may still come up, and QEMU was, or will be, asked to pause the guest until they have. */
  readonly isGuestToBePaused: boolean;
  /** A VMM has mapped or unmapped the slot of a VF that has a carrier: the carrier is to follow, and to be on top. */
  slotChanged?(): void;
  /** A VMM does not show a slot any more, by a reset or by a write to it. */
  slotLost?(): void;
  /** A hold that ends by itself. */
  drawOut(): Hold;
  failed(what: string, error: HostError): void;
}

export class VirtualFunction extends ServedFunction {
  readonly index: number;
  readonly #pf: PfView;
  readonly #trapped: readonly RegionShape[];
  readonly #config: VfConfig;
  #hardware: DeviceFunction | undefined;
  #active = false;
  #isAbsent = false;
  /** Resets that the host has not finished. */
  #resets = 0;
  /** The last of them was the guest's own: nothing answers, Command included, which is how Linux sees it end. */
  #inFlr = false;
  #placementLost = true;
  #resetsOfSlot = 0;
  /** A VMM maps its memory, by a carrier. */
  #hasCarrier = false;
  /** The client was told to map anew, and has not answered; and what there is to map has changed since. */
  #isRemapping = false;
  #changesAgain = false;
  readonly #onUnmapped: (() => void)[] = [];
  /** The enable that brought this VF up last; 0 before the first. */
  generation = 0;

  constructor(index: number, shape: FunctionShape, pf: PfView) {
    super(`vf${index}`, shape, pf);
    this.index = index;
    this.#pf = pf;
    this.#trapped = shape.regions.map((region) => ({ ...region, mappable: [] }));
    this.#config = new VfConfig(shape.config, {
      isSlot: () => this.isSlot,
      isRevealed: () => this.revealed,
      isMapped: () => this.#hasCarrier || this.canRemap || !this.isSlot,
      slotChanged: () => {
        if (this.#hasCarrier) {
          this.#pf.slotChanged?.();
        }
        if (this.isSlotSilent) {
          this.#pf.slotLost?.();
        }
      },
      hardware: () => this.#hardware,
      functionLevelReset: () => this.#functionLevelReset(),
    });
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
    return this.#placementLost && !this.#config.hasBars;
  }

  /** Where the slot's VMM shows one of its BARs; undefined: nowhere. */
  slotAddress(bar: BarShape): bigint | undefined {
    return this.isSlotSilent ? undefined : this.#config.slotAddress(bar);
  }

  /** The slot's Command, as QEMU has it. */
  get slotCommand(): number {
    return this.#config.command;
  }

  /** The slot is where it was placed last, and its BARs answer. */
  get isPlaced(): boolean {
    return !this.placementLost && this.#config.memoryEnabled;
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

  /** In a slot nothing is mapped, unless its client unmaps when it is told to: a disabled VF would not fall silent. */
  override region(index: number): RegionShape {
    const region = super.region(index);
    return this.isSlot && !this.canRemap ? this.#trapped[index]! : region;
  }

  override regionFile(index: number): { readonly fd: number; readonly offset: bigint } | undefined {
    return this.canRemap && !this.decodes ? undefined : super.regionFile(index);
  }

  /** The guest has written VF Memory Space Enable: what may be mapped has changed. */
  memorySpaceChanged(): void {
    if (this.#up) {
      this.#remap();
    }
  }

  /** Calls back when the client maps nothing any more that it was told to let go of. */
  whenUnmapped(callback: () => void): void {
    if (this.#isRemapping) {
      this.#onUnmapped.push(callback);
    } else {
      callback();
    }
  }

  /** One at a time: a guest that changes its mind while the client maps is followed when the client has answered. */
  #remap(): void {
    if (this.#isRemapping) {
      this.#changesAgain = true;
      return;
    }
    this.#isRemapping = true;
    this.regionsChanged(() => {
      this.#isRemapping = false;
      if (this.#changesAgain) {
        this.#changesAgain = false;
        this.#remap();
        return;
      }
      for (const callback of this.#onUnmapped.splice(0)) {
        callback();
      }
    });
  }

  /** Wires up a VF that the host has opened; `done` when it reaches its client's memory. The guest does not see it before `activate`. */
  bringUp(
    generation: number,
    open: (wires: FunctionWires) => DeviceFunction,
    later: Later,
    done: () => void,
  ): void {
    this.generation = generation;
    this.#isAbsent = this.faults.makesAbsent();
    this.#hardware = open(this.wires());
    this.#config.writeCommandToHardware();
    this.replayOnto(this.#hardware, later, done);
  }

  activate(): void {
    // The glue writes a slot's Command anew at each enable, maybe since the VF was brought up.
    this.#config.writeCommandToHardware();
    this.#active = true;
    this.#remap();
  }

  /** Its client, if it can, begins to let go of what it has mapped. */
  deactivate(): void {
    const wasUp = this.#up;
    this.#active = false;
    if (wasUp) {
      this.#remap();
    }
  }

  /** The host is about to close the VF. */
  takeDown(): void {
    this.deactivate();
    this.#resets = 0;
    this.memory.hardwareGone();
    if (this.#hardware === undefined) {
      return;
    }
    this.#hardware.close();
    this.#hardware = undefined;
  }

  protected override get hardware(): DeviceFunction | undefined {
    return this.#hardware;
  }

  protected override get isThere(): boolean {
    return this.#up && this.revealed;
  }

  protected override get isAbsent(): boolean {
    return this.#isAbsent;
  }

  protected override get decodesMemory(): boolean {
    return this.#up && this.#resets === 0 && this.#pf.vfMemorySpaceEnable;
  }

  /** It is up, and answers in memory. */
  get decodes(): boolean {
    return this.#up && this.#pf.vfMemorySpaceEnable;
  }

  /** Its memory is mapped over the slot, or is to be as soon as the slot answers. */
  get hasCarrier(): boolean {
    return this.#hasCarrier;
  }

  /** The guest has had the VMM unmap the slot: by its Command, or its Power State. */
  get isSlotSilent(): boolean {
    return !this.#config.isShown;
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
    if (isAttached && this.isSlotSilent) {
      this.#pf.slotChanged?.();
    }
    if (this.#resets === 0) {
      this.#config.writePowerStateToHardware();
    }
  }

  protected override readConfig(offset: number, into: Uint8Array): void {
    if (this.#up) {
      if (this.#resets === 0) {
        this.#config.read(offset, into);
      } else if (this.#inFlr) {
        into.fill(0xff);
      } else {
        this.#config.readAllOnes(offset, into);
      }
    } else if (this.#pf.expects(this.index) && this.revealed && !this.#isSeenEarly) {
      this.#config.readAllOnes(offset, into);
    } else {
      this.#config.readDormant(offset, into);
    }
  }

  protected override writeConfig(offset: number, from: Uint8Array): void {
    if (this.#up && this.#resets === 0) {
      this.#config.write(offset, from);
    } else {
      this.#config.keep(offset, from);
    }
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
    this.#config.forgetKept();
    this.#placementLost = true;
    this.#resetsOfSlot++;
    this.#pf.slotLost?.();
  }

  get #up(): boolean {
    return this.#active && this.#hardware !== undefined;
  }

  protected override hostFailed(what: string, error: HostError): void {
    this.#pf.failed(what, error);
  }

  #functionLevelReset(): void {
    this.observers.reset(this.name, 'function');
    this.#config.forgetKeptOfGuest();
    this.#inFlr = true;
    this.#resets++;
    const hardware = this.#hardware;
    this.faults.delayReset(() => this.#resetHardware(hardware));
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
    if (this.#hardware !== undefined) {
      this.#resets++;
      this.#resetHardware(this.#hardware);
    }
  }

  /** `hardware`: what the reset was begun of; the VF may have gone meanwhile. */
  #resetHardware(hardware: DeviceFunction | undefined): void {
    if (hardware === undefined || hardware !== this.#hardware) {
      return;
    }
    hardware.reset((error) => {
      if (hardware !== this.#hardware) {
        return;
      }
      this.#resets--;
      if (error !== undefined) {
        this.hostFailed(`reset of ${this.name}`, error);
      }
      // A host that resets a function gives it back with the Command that it had before.
      this.#config.writeCommandToHardware();
    });
  }
}
