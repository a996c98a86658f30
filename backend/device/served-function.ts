// What a vfio-user session serves: one function of the VM, as the VMM sees it. The PF and the VFs differ in their config
// space, their BARs and their resets; regions, interrupts and guest memory are alike and are here.

import { WireError } from '../../protocol/errno.ts';
import { allOnes } from '../../protocol/little-endian.ts';
import { RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { DmaFlag } from '../../protocol/vfio-user/messages.ts';
import { maskOf } from '../pci/registers.ts';
import { CONFIG_BYTES, HEADER } from '../pci/spec/header.ts';
import { ClientMemory, type Later } from './client-memory.ts';
import { countdown } from './countdown.ts';
import { type Faults, NO_FAULTS } from './faults.ts';
import { FunctionFaults } from './function-faults.ts';
import { type Hold, Holds } from './hold.ts';
import { Interrupts } from './interrupts.ts';
import { Observers } from './observer.ts';
import {
  type DeviceFunction,
  type DmaWindow,
  type Done,
  type FunctionShape,
  type FunctionWires,
  type HostError,
  type IrqRequest,
  type IrqShape,
  NO_FILE,
  type RegionShape,
} from './physical-device.ts';

const BUS_MASTER_ENABLE = maskOf(HEADER.command, 'busMasterEnable');

/** What the client of a session negotiated that changes what it is shown. */
export interface SessionTraits {
  /** It knows the hot-plug extension. */
  readonly knowsHotplug: boolean;
  /** Nothing has to be hidden from it while it attaches. */
  readonly seesAllAtOnce: boolean;
  /** Has it map a region anew; `done` when it has let go of what it had, or is gone. Undefined: it cannot do that. */
  readonly changeRegion?: ((index: number, done: () => void) => void) | undefined;
}

/** Beside a function's name and shape. */
export interface ServedOptions {
  readonly observers?: Observers | undefined;
  readonly faults?: Faults | undefined;
  readonly maxDmaMaps?: number | undefined;
}

export abstract class ServedFunction {
  /** `pf`, or `vf` and its index. */
  readonly name: string;
  readonly shape: FunctionShape;
  /** The client's. */
  readonly memory: ClientMemory;
  readonly interrupts: Interrupts;
  /** Who hears what happens to it. */
  readonly observers: Observers;
  /** What goes wrong with it on purpose. */
  protected readonly faults: FunctionFaults;
  #session: SessionTraits | undefined;
  #revealed = false;
  /** Of the writes that are being carried out. */
  readonly #holds = new Holds();

  constructor(name: string, shape: FunctionShape, options: ServedOptions = {}) {
    const { observers = new Observers(), faults = NO_FAULTS, maxDmaMaps } = options;
    this.name = name;
    this.observers = observers;
    this.shape = shape;
    this.memory = new ClientMemory(() => this.hardware, maxDmaMaps);
    this.interrupts = new Interrupts(shape.irqs, (index, vector) =>
      this.faults.withholds(index, vector),
    );
    this.faults = new FunctionFaults({
      name,
      config: shape.config,
      faults,
      interrupts: this.interrupts,
      view: {
        isThere: () => this.isThere,
        isAbsent: () => this.isAbsent,
        isSlot: () => this.isSlot,
      },
    });
  }

  /** The function behind it, undefined while there is none (a VF that is not up). */
  protected abstract get hardware(): DeviceFunction | undefined;
  /** Whether the guest finds a function here, so that it can be faulty. */
  protected abstract get isThere(): boolean;
  /** Standard and extended config space, when `revealed`; within bounds. */
  protected abstract readConfig(offset: number, into: Uint8Array): void;
  protected abstract writeConfig(offset: number, from: Uint8Array): void;
  /** Whether BARs answer at all. */
  protected abstract get decodesMemory(): boolean;
  /** It never came up, though it should have. */
  protected get isAbsent(): boolean {
    return false;
  }
  /** The client's DEVICE_RESET. */
  protected abstract resetFunction(done: Done): void;
  /** The client has gone; its interrupts and its memory are gone too. */
  protected abstract clientGone(): void;
  /** Tells that the host refused something that nobody waits for. */
  protected abstract hostFailed(what: string, error: HostError): void;

  get attached(): boolean {
    return this.#session !== undefined;
  }

  /**
   * Whether extended config space is shown. QEMU drops SR-IOV and ARI from the chain that it finds at realize time, and
   * answers the chain's headers itself from then on; what it finds empty, it leaves alone. So it is shown from the
   * first DEVICE_RESET on, which QEMU sends before the guest runs; at once to a client that needs no such hiding.
   */
  protected get revealed(): boolean {
    return this.#revealed;
  }

  /** Its client knows nothing of hot-plug: a function that QEMU realised at launch. */
  protected get isSlot(): boolean {
    return this.#session?.knowsHotplug !== true;
  }

  /** Its client maps regions anew whenever it is told to. */
  get canRemap(): boolean {
    return this.#session?.changeRegion !== undefined;
  }

  /** Whether a region that has no file now may have one later, of which the client is told. */
  mapsLater(index: number): boolean {
    return this.canRemap && this.region(index).mappable.length > 0;
  }

  /** Has the client map anew what may be mapped; `done` when it has let go of everything that it had. */
  protected regionsChanged(done: () => void): void {
    const changeRegion = this.#session?.changeRegion;
    const regions = this.shape.regions.filter(({ index }) => this.mapsLater(index));
    const oneIsChanged = countdown(regions.length, done);
    for (const { index } of regions) {
      changeRegion?.(index, oneIsChanged);
    }
  }

  attach(traits: SessionTraits): void {
    if (this.attached) {
      throw new WireError('EBUSY', `${this.name} is attached already; one client at a time`);
    }
    this.#session = traits;
    this.#revealed = traits.seesAllAtOnce;
  }

  /**
   * The client has gone: the function does no DMA any more, its eventfds are closed, its memory is unmapped; the rest of its
   * state stays.
   */
  detach(): void {
    if (!this.attached) {
      return;
    }
    this.#session = undefined;
    const { hardware } = this;
    this.#stopMastering();
    this.interrupts.clear(hardware, (error) =>
      this.hostFailed(`interrupts of ${this.name}`, error),
    );
    this.memory.clear((error) => {
      if (error !== undefined) {
        this.hostFailed(`guest memory of ${this.name}`, error);
      }
    });
    this.#revealed = false;
    this.clientGone();
  }

  /** A driver's rings are still live where its VM was killed: a fetch from memory that has gone is an error of the bus. */
  #stopMastering(): void {
    const { hardware } = this;
    const { offset } = HEADER.command;
    const command = hardware?.readConfig(offset, 2) ?? 0;
    if ((command & BUS_MASTER_ENABLE) !== 0 && command !== allOnes(2)) {
      hardware?.writeConfig(offset, 2, command & ~BUS_MASTER_ENABLE);
    }
  }

  /** @throws WireError EINVAL for an index or a range that the function does not have. */
  readRegion(index: number, offset: number, into: Uint8Array): void {
    const region = this.#region(index, offset, into.length);
    if (into.length === 0) {
      return;
    }
    this.#read(region, offset, into);
    if (!this.observers.isEmpty) {
      this.observers.access(this.name, false, index, offset, into);
    }
  }

  #read(region: RegionShape, offset: number, into: Uint8Array): void {
    const { index } = region;
    if (this.faults.isGone()) {
      into.fill(0xff);
    } else if (index === RegionIndex.config) {
      this.#readConfig(offset, into);
      this.faults.spoilConfig(offset, into);
    } else if (!region.readable || !this.decodesMemory || this.hardware === undefined) {
      into.fill(0xff);
    } else {
      this.hardware.readRegion(index, offset, into);
    }
  }

  /** What the answer to a read of this region has to wait for, if anything. */
  holdRead(_region: number): Hold | undefined {
    return undefined;
  }

  /** What the answer has to wait for, `takeHolds` gives, also after a write that throws. @throws WireError EINVAL as `readRegion`. */
  writeRegion(index: number, offset: number, from: Uint8Array): void {
    const region = this.#region(index, offset, from.length);
    if (from.length > 0) {
      if (!this.observers.isEmpty) {
        this.observers.access(this.name, true, index, offset, from);
      }
      if (this.faults.isGone()) {
        return;
      }
      if (index === RegionIndex.config) {
        this.faults.configWritten(offset, from);
        this.#writeConfig(offset, from);
      } else if (region.writable && this.decodesMemory) {
        this.hardware?.writeRegion(index, offset, from);
      }
    }
  }

  /** What the answer to the writes since the last call has to wait for: mostly nothing. */
  takeHolds(): readonly Hold[] {
    return this.#holds.take();
  }

  /** To be called while a write is carried out: its answer waits until the hold is released. */
  holdAnswer(): Hold {
    return this.#holds.begin();
  }

  region(index: number): RegionShape {
    const region = this.shape.regions[index];
    if (region === undefined) {
      throw new WireError('EINVAL', `no region ${index}`, { path: this.name });
    }
    return region;
  }

  irq(index: number): IrqShape {
    const irq = this.shape.irqs[index];
    if (irq === undefined) {
      throw new WireError('EINVAL', `no interrupt index ${index}`, { path: this.name });
    }
    return irq;
  }

  /** What a VMM maps of a region; undefined where all of it is trapped. */
  regionFile(index: number): { readonly fd: number; readonly offset: bigint } | undefined {
    if (this.region(index).mappable.length === 0) {
      return undefined;
    }
    const file = this.hardware?.regionFile(index);
    if (file !== undefined) {
      this.observers.mapped(this.name, index);
    }
    return file;
  }

  setIrqs(request: IrqRequest): void {
    this.observers.setIrqs(this.name, request);
    this.interrupts.apply(request, this.hardware);
  }

  /** As `ClientMemory.map`. */
  mapDma(window: DmaWindow, done: Done): void {
    const { address, size, fd, readable, writable } = window;
    this.observers.dma(this.name, true, {
      address,
      size,
      flags: (readable ? DmaFlag.read : 0) | (writable ? DmaFlag.write : 0),
      fds: fd === NO_FILE ? 0 : 1,
    });
    this.memory.map(window, done);
  }

  /** As `ClientMemory.unmap`. */
  unmapDma(address: bigint, size: bigint, done: Done, later: Later): void {
    this.observers.dma(this.name, false, { address, size, flags: 0, fds: 0 });
    this.memory.unmap(address, size, done, later);
  }

  reset(done: Done): void {
    this.observers.reset(this.name, 'device');
    this.#revealed = true;
    this.faults.deviceReset();
    this.resetFunction(done);
  }

  /** Hands everything that the client bound to a function that was opened after it did; of much memory some `later`. */
  protected replayOnto(hardware: DeviceFunction, later: Later, done: () => void): void {
    this.interrupts.replay(hardware);
    const failed = (error: HostError): void =>
      this.hostFailed(`guest memory for ${this.name}`, error);
    this.memory.replayOnto(hardware, failed, later, done);
  }

  /** How a function without hardware of its own reaches the client's interrupts and memory. */
  protected wires(): FunctionWires {
    return {
      raise: (index, vector) => this.#raise(index, vector),
      drive: (index, vector, asserted) =>
        this.interrupts.drive(index, vector, asserted && !this.faults.isGoneForGood),
      readMemory: (address, into) =>
        !this.faults.failsDma() && this.memory.windows.read(address, into),
      writeMemory: (address, from) =>
        !this.faults.failsDma() && this.memory.windows.write(address, from),
      moveFile: (file, ranges, way) =>
        !this.faults.failsDma() && this.memory.windows.moveFile(file, ranges, way),
    };
  }

  /** Whether an interrupt by message would be heard, by MSI-X or by MSI. */
  hears(vector: number): boolean {
    return this.faults.hears(vector);
  }

  /** An interrupt that the device did not raise. */
  raiseSpurious(vector: number): void {
    this.faults.raiseSpurious(vector);
  }

  /** Other vectors than before are withheld from the hardware. */
  withheldChanged(): void {
    if (this.hardware !== undefined) {
      this.interrupts.replay(this.hardware);
    }
  }

  /** To the device a lost interrupt is one that was raised. */
  #raise(index: number, vector: number): boolean {
    return this.faults.loses(index, vector) || this.interrupts.raise(index, vector);
  }

  #region(index: number, offset: number, length: number): RegionShape {
    const region = this.region(index);
    if (offset + length > region.size) {
      throw new WireError(
        'EINVAL',
        `${length} bytes at 0x${offset.toString(16)} leave region ${index} of ${region.size} bytes`,
        { path: this.name },
      );
    }
    return region;
  }

  #readConfig(offset: number, into: Uint8Array): void {
    if (this.#revealed || offset + into.length <= CONFIG_BYTES) {
      this.readConfig(offset, into);
      return;
    }
    // QEMU reads all 4096 bytes at once while it attaches: what it gets is decided byte by byte, not by the start.
    const standard = Math.max(0, CONFIG_BYTES - offset);
    if (standard > 0) {
      this.readConfig(offset, into.subarray(0, standard));
    }
    into.fill(0, standard);
  }

  #writeConfig(offset: number, from: Uint8Array): void {
    const end = this.#revealed ? from.length : Math.max(0, CONFIG_BYTES - offset);
    if (end > 0) {
      this.writeConfig(offset, from.subarray(0, end));
    }
  }
}
