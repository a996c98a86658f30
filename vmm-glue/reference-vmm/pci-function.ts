// One PCI function as a VMM and its guest use it: config space, BARs (mapped where the server allows it, by messages
// elsewhere), MSI-X with eventfds, DMA windows. The reference VMM makes one for the PF and one for each VF.

import { ExclusiveQueue } from '../../protocol/exclusive-queue.ts';
import { IrqIndex } from '../../protocol/vfio-user/commands.ts';
import { DeviceInfoFlag } from '../../protocol/vfio-user/messages.ts';
import type { VfioUserClient } from '../client/client.ts';
import { Interrupt } from '../client/interrupts.ts';
import type { GuestMemory, MappedArea } from '../client/memory.ts';
import { type PlacedBar, type SizedBar, sizeBars, writeBar } from './bars.ts';
import { type Capabilities, findCapabilities } from './capabilities.ts';
import { ClientConfig, type ConfigAccess, toBytes, toInteger } from './config-access.ts';
import { CapabilityId, CommandBit, Header, Msix, MsixBit, Pcie, PcieBit } from './pci-offsets.ts';

/** Where guest RAM starts on the guest's bus. */
export const GUEST_MEMORY_ADDRESS = 0n;
/** What a guest writes into an MSI-X table entry on x86; a vfio-user server takes the eventfd instead. */
const MESSAGE_ADDRESS = 0xfee0_0000;
const MESSAGE_DATA = 0x20;
const FLR_WAIT_MILLISECONDS = 100;
/** Linux gives a function this long to come back. */
const READY_PATIENCE_MILLISECONDS = 60_000;
const ALL_ONES = 0xffff_ffff;

export class PciFunction {
  readonly name: string;
  readonly client: VfioUserClient;
  readonly config: ConfigAccess;
  vendorId = 0;
  deviceId = 0;
  capabilities: Capabilities = { standard: new Map(), extended: new Map() };
  bars: readonly PlacedBar[] = [];
  interrupts: readonly Interrupt[] = [];
  #areas: MappedArea[] = [];
  /** `mapBars` was called: BARs are mapped wherever the server allows it. */
  #isMapping = false;
  /** What asks for a region and what then maps it must not change places with another's. */
  readonly #mapping = new ExclusiveQueue();
  #memory: GuestMemory | undefined;

  constructor(name: string, client: VfioUserClient) {
    this.name = name;
    this.client = client;
    this.config = new ClientConfig(client);
  }

  /** What a VMM does before the guest runs: checks that it is a PCI device, and shares guest memory with it. */
  async attach(memory: GuestMemory): Promise<void> {
    const size = BigInt(memory.length);
    await this.client.mapDma({
      address: GUEST_MEMORY_ADDRESS,
      size,
      ...(this.client.carriesFds ? { fd: memory.fd } : {}),
    });
    this.#memory = memory;
    const { flags } = await this.client.deviceInfo();
    if ((flags & DeviceInfoFlag.pci) === 0) {
      throw new Error(`${this.name}: the server's device is not a PCI device`);
    }
  }

  /** What a guest's kernel does first: identity and capabilities. */
  async enumerate(): Promise<void> {
    const ids = await this.config.read(Header.vendorId, 4);
    this.vendorId = ids & 0xffff;
    this.deviceId = ids >>> 16;
    await this.config.read(Header.headerType, 1);
    await this.config.read(Header.revisionAndClass, 4);
    await this.config.read(Header.subsystemVendorId, 2);
    await this.config.read(Header.subsystemId, 2);
    this.capabilities = await findCapabilities(this.config);
  }

  /** Sizes the function's own BARs, with decoding off, and places them. A VF has none: its PF places them. */
  async placeBars(take: (bar: SizedBar) => bigint): Promise<void> {
    const command = await this.config.read(Header.command, 2);
    await this.config.write(Header.command, 2, command & ~CommandBit.memory);
    const placed: PlacedBar[] = [];
    for (const bar of await sizeBars(this.config, Header.bar0)) {
      if (!bar.isIo) {
        const address = take(bar);
        await writeBar(this.config, bar, address);
        placed.push({ ...bar, address });
      }
    }
    this.bars = placed;
    await this.config.write(Header.command, 2, command | CommandBit.memory);
  }

  /** Says where a VF's BARs are, and what a kernel takes from the PF: vendor and device ID. */
  adopt(bars: readonly PlacedBar[], vendorId: number, deviceId: number): void {
    this.bars = bars;
    this.vendorId = vendorId;
    this.deviceId = deviceId;
  }

  /** What `mapBars` has mapped. */
  get areas(): readonly MappedArea[] {
    return this.#areas;
  }

  /** Maps the parts of all memory BARs that the server allows, once; the rest goes by messages. */
  mapBars(): Promise<void> {
    return this.#mapping.run(async () => {
      if (!this.client.carriesFds || this.#isMapping) {
        return;
      }
      this.#isMapping = true;
      for (const bar of this.bars) {
        await this.#mapBar(bar.index);
      }
    });
  }

  /** Lets go of what is mapped of a BAR, and maps what may be mapped now. */
  remapBar(index: number): Promise<void> {
    return this.#mapping.run(async () => {
      const own = this.#areas.filter(({ region }) => region === index);
      this.#areas = this.#areas.filter(({ region }) => region !== index);
      for (const area of own) {
        area.close();
      }
      if (this.#isMapping && this.bars.some((bar) => bar.index === index)) {
        await this.#mapBar(index);
      }
    });
  }

  async #mapBar(index: number): Promise<void> {
    const areas = await this.client.mapRegion(index);
    // It may have been let go of meanwhile.
    if (this.#isMapping) {
      this.#areas.push(...areas);
    } else {
      for (const area of areas) {
        area.close();
      }
    }
  }

  async setBusMaster(on: boolean): Promise<void> {
    const command = await this.config.read(Header.command, 2);
    const cleared = command & ~CommandBit.busMaster;
    await this.config.write(Header.command, 2, on ? cleared | CommandBit.busMaster : cleared);
  }

  /** Reads a BAR, through the mapping where there is one. */
  async readBar(bar: number, offset: number, length: number): Promise<Uint8Array> {
    const area = this.#areaOf(bar, offset, length);
    if (area !== undefined) {
      return area.bytes.slice(offset - area.offset, offset - area.offset + length);
    }
    return this.client.readRegion(bar, offset, length);
  }

  /** Writes a BAR, through the mapping where there is one; an unmapped write is done when this resolves. */
  async writeBar(bar: number, offset: number, bytes: Uint8Array): Promise<void> {
    const area = this.#areaOf(bar, offset, bytes.length);
    if (area !== undefined) {
      area.bytes.set(bytes, offset - area.offset);
    } else {
      await this.client.writeRegion(bar, offset, bytes);
    }
  }

  /** A 32-bit register of a BAR. */
  async readRegister(bar: number, offset: number): Promise<number> {
    return toInteger(await this.readBar(bar, offset, 4));
  }

  async writeRegister(bar: number, offset: number, value: number): Promise<void> {
    await this.writeBar(bar, offset, toBytes(value, 4));
  }

  /** Sets MSI-X up as guest and VMM do it together: table entries, eventfds, then MSI-X Enable. */
  async enableMsix(): Promise<readonly Interrupt[]> {
    const base = this.capabilities.standard.get(CapabilityId.msix);
    if (base === undefined) {
      throw new Error(`${this.name}: it has no MSI-X capability`);
    }
    const control = await this.config.read(base + Msix.control, 2);
    const count = (control & MsixBit.tableSizeMask) + 1;
    const table = await this.config.read(base + Msix.table, 4);
    const enabled = control | MsixBit.enable;
    await this.config.write(base + Msix.control, 2, enabled | MsixBit.functionMask);
    for (let vector = 0; vector < count; vector += 1) {
      const entry = (table & ~0x7) + vector * Msix.entrySize;
      await this.writeRegister(table & 0x7, entry, MESSAGE_ADDRESS);
      await this.writeRegister(table & 0x7, entry + 4, 0);
      await this.writeRegister(table & 0x7, entry + 8, MESSAGE_DATA + vector);
      await this.writeRegister(table & 0x7, entry + 12, 0);
    }
    this.interrupts = Array.from({ length: count }, () => new Interrupt());
    await this.client.bindInterrupts(IrqIndex.msix, 0, this.interrupts);
    await this.config.write(base + Msix.control, 2, enabled & ~MsixBit.functionMask);
    return this.interrupts;
  }

  /**
   * Function level reset by the PCIe capability; `wait` passes the 100 ms that software must wait. A function that reads
   * all ones then is not ready yet, and is asked again, as Linux does.
   */
  async functionLevelReset(wait: (milliseconds: number) => Promise<void>): Promise<void> {
    const base = this.capabilities.standard.get(CapabilityId.pcie);
    if (base === undefined) {
      throw new Error(`${this.name}: it has no PCI Express capability`);
    }
    const offered = await this.config.read(base + Pcie.deviceCapabilities, 4);
    if ((offered & PcieBit.flrCapable) === 0) {
      throw new Error(`${this.name}: it does not offer function level reset`);
    }
    const control = await this.config.read(base + Pcie.deviceControl, 2);
    await this.config.write(base + Pcie.deviceControl, 2, control | PcieBit.initiateFlr);
    for (let waited = 0; waited < READY_PATIENCE_MILLISECONDS; ) {
      await wait(FLR_WAIT_MILLISECONDS);
      waited += FLR_WAIT_MILLISECONDS;
      if ((await this.config.read(Header.command, 4)) !== ALL_ONES) {
        return;
      }
    }
    throw new Error(
      `${this.name}: it is not ready ${READY_PATIENCE_MILLISECONDS} ms after its function level reset`,
    );
  }

  /** Lets go of everything in the order a VMM does it: mappings, interrupts, DMA windows, connection. */
  async detach(): Promise<void> {
    this.#release();
    if (this.client.isOpen && this.#memory !== undefined) {
      await this.client.unmapDma(GUEST_MEMORY_ADDRESS, BigInt(this.#memory.length));
    }
    this.client.close();
  }

  /** The same without a word to the server, for one that is gone or that is to be left hanging. */
  drop(): void {
    this.#release();
    this.client.close();
  }

  #release(): void {
    this.#isMapping = false;
    for (const area of this.#areas.splice(0)) {
      area.close();
    }
    for (const interrupt of this.interrupts) {
      interrupt.close();
    }
    this.interrupts = [];
  }

  #areaOf(bar: number, offset: number, length: number): MappedArea | undefined {
    return this.#areas.find(
      (area) =>
        area.region === bar &&
        offset >= area.offset &&
        offset + length <= area.offset + area.length,
    );
  }
}
