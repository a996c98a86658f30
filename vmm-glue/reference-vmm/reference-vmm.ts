// A VMM and its guest in few lines: memory, one PF, and the VFs that the backend plugs. It behaves like Linux where
// order and waits matter, and answers hot-plug events as a correct VMM does, or as badly as a test tells it to.

import type { VfPlug } from '../../protocol/hotplug/messages.ts';
import { pause } from '../../protocol/retry.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { type ClientOptions, VfioUserClient } from '../client/client.ts';
import type { HotplugEvent, VfPlugEvent, VfUnplugEvent } from '../client/hotplug.ts';
import { GuestMemory } from '../client/memory.ts';
import type { Transport } from '../client/transport.ts';
import { UnixTransport } from '../client/unix-transport.ts';
import { AddressSpace } from './address-space.ts';
import type { PlacedBar } from './bars.ts';
import { PciFunction } from './pci-function.ts';
import { ExtendedCapabilityId, Header } from './pci-offsets.ts';
import { SriovCapability } from './sriov-capability.ts';

/**
 * How a VMM treats VfUnplug: lets go and says so, refuses, never answers, or says done and keeps all it has. When its backend
 * dies, only the first lets go.
 */
export type UnplugManners = 'release' | 'refuse' | 'ignore' | 'lie';

export interface ReferenceVmmOptions {
  /** The PF's socket, or any transport to it. */
  readonly pf: string | Transport;
  /** Guest RAM in bytes; 16 MiB by default. */
  readonly memoryBytes?: number;
  /** Whether the guest's bus forwards by ARI; default true, as behind a root port. */
  readonly ari?: boolean;
  /** Passes the waits of the standard; default: real time. */
  readonly wait?: (milliseconds: number) => Promise<void>;
  /** Reaches a VF's session where the plug event brings a path and no socket; default: a unix socket. */
  readonly openPath?: (path: string) => Transport;
  /** Called with every hot-plug event before it is handled. */
  readonly onEvent?: (event: HotplugEvent) => void;
  readonly client?: Omit<ClientOptions, 'messageDma'>;
}

const ALL_ONES_HEADER_TYPE = 0xff;
const EBUSY = 16;
const EIO = 5;

export class ReferenceVmm {
  readonly memory: GuestMemory;
  readonly pf: PciFunction;
  /** Plugged VFs by index. */
  readonly vfs = new Map<number, PciFunction>();
  unplugManners: UnplugManners = 'release';
  /** What a lying VMM kept. */
  readonly #kept: PciFunction[] = [];
  readonly #options: ReferenceVmmOptions;
  readonly #addresses = new AddressSpace();
  #sriov: SriovCapability | undefined;
  /** Resolves at EnableEnd; pending means that the guest is paused. */
  #enabling: Promise<void> = Promise.resolve();
  #endEnabling: () => void = () => {};
  #events: Promise<void> = Promise.resolve();

  /** Connects, shares memory, and boots the guest up to the point where VFs can be enabled. */
  static async start(options: ReferenceVmmOptions): Promise<ReferenceVmm> {
    const memory = new GuestMemory(options.memoryBytes ?? 16 * 1024 * 1024);
    let client: VfioUserClient | undefined;
    let pf: PciFunction | undefined;
    try {
      const transport =
        typeof options.pf === 'string'
          ? UnixTransport.connect(options.pf, options.client?.clock)
          : options.pf;
      client = await VfioUserClient.over(transport, {
        onRegionChanged: (index) => pf?.remapBar(index),
        ...options.client,
        capabilities: { ...options.client?.capabilities, ...HOTPLUG },
        messageDma: dmaOf(memory),
      });
      pf = new PciFunction('PF', client);
      const vmm = new ReferenceVmm(options, memory, pf);
      await vmm.#boot();
      return vmm;
    } catch (error) {
      client?.close();
      memory.close();
      throw error;
    }
  }

  private constructor(options: ReferenceVmmOptions, memory: GuestMemory, pf: PciFunction) {
    this.#options = options;
    this.memory = memory;
    this.pf = pf;
  }

  /** The PF's SR-IOV capability. */
  get sriov(): SriovCapability {
    if (this.#sriov === undefined) {
      throw new Error('PF: it shows no SR-IOV capability');
    }
    return this.#sriov;
  }

  /** `echo N > sriov_numvfs`. Rejects the way Linux does (EIO) when VF 0 does not answer; then VF Enable is clear again. */
  async enableVfs(count: number): Promise<PciFunction[]> {
    await this.sriov.enable(count);
    // A VMM holds the guest's CPUs from EnableBegin to EnableEnd.
    await this.#enabling;
    const enabled: PciFunction[] = [];
    for (let index = 0; index < count; index += 1) {
      const vf = this.vfs.get(index);
      const headerType = (await vf?.config.read(Header.headerType, 1)) ?? ALL_ONES_HEADER_TYPE;
      if (vf === undefined || headerType === ALL_ONES_HEADER_TYPE) {
        await this.sriov.disable();
        throw new Error(`VF ${index}: it reads all ones after VF Enable (EIO in Linux)`);
      }
      await vf.enumerate();
      vf.adopt(this.#barsOfVf(index), this.pf.vendorId, this.sriov.vfDeviceId);
      enabled.push(vf);
    }
    return enabled;
  }

  /** `echo 0 > sriov_numvfs`; the VFs are unplugged by the backend's events meanwhile. */
  async disableVfs(): Promise<void> {
    await this.sriov.disable();
    await this.#events;
  }

  /** Lets go of every VF, also of those that were to be given back before. */
  async releaseVfs(): Promise<void> {
    const held = [...this.vfs.values(), ...this.#kept.splice(0)];
    this.vfs.clear();
    await Promise.all(held.map((vf) => vf.detach().catch(() => vf.drop())));
  }

  /** Closes everything and leaves the backend to whoever comes next. */
  async close(): Promise<void> {
    await this.releaseVfs();
    await this.pf.detach().catch(() => this.pf.drop());
    this.memory.close();
  }

  /** Dies as a killed VMM does: all connections and mappings go at once. */
  kill(): void {
    for (const vf of [...this.vfs.values(), ...this.#kept.splice(0)]) {
      vf.drop();
    }
    this.vfs.clear();
    this.pf.drop();
    this.memory.close();
  }

  async #boot(): Promise<void> {
    if (this.pf.client.hasHotplug) {
      void this.#listen();
    }
    await this.pf.attach(this.memory);
    await this.pf.client.reset();
    await this.pf.enumerate();
    const base = this.pf.capabilities.extended.get(ExtendedCapabilityId.sriov);
    if (base !== undefined) {
      const clock = this.#options.client?.clock ?? processClock;
      this.#sriov = new SriovCapability(this.pf.config, base, {
        ari: this.#options.ari ?? true,
        wait: this.#options.wait ?? ((milliseconds) => pause(clock, milliseconds)),
      });
      await this.#sriov.initialize();
    }
    await this.pf.placeBars((bar) => this.#addresses.take(bar));
    await this.#sriov?.placeVfBars((bar, count) => this.#addresses.take(bar, count));
    await this.pf.mapBars();
    await this.pf.setBusMaster(true);
  }

  async #listen(): Promise<void> {
    for await (const event of this.pf.client.hotplugEvents()) {
      this.#options.onEvent?.(event);
      // Plugs run side by side; an unplug waits for what was plugged before it.
      const handled = this.#handle(event, this.#events);
      this.#events = Promise.all([this.#events, handled]).then(() => {});
    }
    // The connection is gone, and with it whoever would have said EnableEnd.
    this.#endEnabling();
    const isLost = (await this.pf.client.closed) !== undefined;
    if (isLost && this.unplugManners === 'release') {
      await this.#loseVfs();
    }
  }

  /** The server is gone: what is mapped of its VFs is memory of nobody's. */
  async #loseVfs(): Promise<void> {
    await this.#events;
    for (const vf of this.vfs.values()) {
      vf.drop();
    }
    this.vfs.clear();
  }

  async #handle(event: HotplugEvent, before: Promise<void>): Promise<void> {
    switch (event.kind) {
      case 'enableBegin':
        this.#endEnabling();
        this.#enabling = new Promise((resolve) => {
          this.#endEnabling = resolve;
        });
        event.done();
        return;
      case 'vfPlug':
        await this.#plug(event);
        return;
      case 'vfUnplug':
        await before;
        await this.#unplug(event);
        return;
      case 'enableEnd':
        await before;
        this.#endEnabling();
        return;
    }
  }

  async #plug(event: VfPlugEvent): Promise<void> {
    const { vfIndex } = event.message;
    let remapped: PciFunction | undefined;
    try {
      const client = await VfioUserClient.over(this.#transportOf(event), {
        onRegionChanged: (index) => this.#remap(remapped, index),
        ...this.#options.client,
        messageDma: dmaOf(this.memory),
      });
      const vf = new PciFunction(`VF ${vfIndex}`, client);
      remapped = vf;
      try {
        await vf.attach(this.memory);
        vf.adopt(barsOf(event.message), event.message.vendorId, event.message.deviceId);
        await vf.mapBars();
      } catch (error) {
        vf.drop();
        throw error;
      }
      this.vfs.set(vfIndex, vf);
      event.done();
    } catch (error) {
      event.refuse(EIO, error instanceof Error ? error.message : String(error));
    }
  }

  /** Until there is a function, nothing of it is mapped. */
  async #remap(its: PciFunction | undefined, bar: number): Promise<void> {
    if (this.unplugManners !== 'lie') {
      await its?.remapBar(bar);
    }
  }

  async #unplug(event: VfUnplugEvent): Promise<void> {
    const { vfIndex } = event.message;
    const vf = this.vfs.get(vfIndex);
    switch (this.unplugManners) {
      case 'release':
        this.vfs.delete(vfIndex);
        await vf?.detach().catch(() => vf.drop());
        event.done();
        return;
      case 'refuse':
        event.refuse(EBUSY, `VF ${vfIndex} is in use`);
        return;
      case 'lie':
        this.vfs.delete(vfIndex);
        if (vf !== undefined) {
          this.#kept.push(vf);
        }
        event.done();
        return;
      case 'ignore':
        return;
    }
  }

  #transportOf(event: VfPlugEvent): Transport {
    const fd = event.takeFd();
    // Where no socket came the client library has made sure that a path did.
    return fd === undefined
      ? (this.#options.openPath ?? UnixTransport.connect)(event.message.socketPath ?? '')
      : new UnixTransport(fd);
  }

  #barsOfVf(index: number): PlacedBar[] {
    return this.sriov.placedBars.map((bar) => ({
      ...bar,
      address: bar.address + bar.size * BigInt(index),
    }));
  }
}

const HOTPLUG = { sriov_hotplug: { version: 1, role: 'vmm' } } as const;

function barsOf(message: VfPlug): PlacedBar[] {
  return message.bars.map(({ index, size, is64Bit, prefetchable, address }) => ({
    index,
    offset: Header.bar0 + 4 * index,
    size,
    is64Bit,
    prefetchable,
    isIo: false,
    address,
  }));
}

/** Guest memory for a server that asks by messages. */
function dmaOf(memory: GuestMemory): NonNullable<ClientOptions['messageDma']> {
  const range = (address: bigint, length: number): Uint8Array | undefined =>
    address + BigInt(length) <= BigInt(memory.length)
      ? memory.bytes.subarray(Number(address), Number(address) + length)
      : undefined;
  return {
    read(address, into) {
      const from = range(address, into.length);
      if (from !== undefined) {
        into.set(from);
      }
      return from !== undefined;
    },
    write(address, from) {
      const into = range(address, from.length);
      into?.set(from);
      return into !== undefined;
    },
  };
}
