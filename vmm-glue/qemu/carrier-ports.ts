// Where a running QEMU has the root ports that carriers go on, and the register that takes their functions out.

import { text } from './answers.ts';
import type { CarrierPort } from './carrier-writes.ts';
import type { Config } from './config-access.ts';
import type { BusNumbers } from './devices.ts';
import type { Monitor } from './monitor.ts';
import { Header, PciExpress } from './pci-registers.ts';
import { carrierPortId } from './topology.ts';

export interface CarrierPortsOptions {
  readonly monitor: Monitor;
  readonly buses: BusNumbers;
  /** Counts the backends of this QEMU from 0. */
  readonly index: number;
}

export const PERIPHERALS = '/machine/peripheral';
const MOST_CAPABILITIES = 48;

/** The guest has not numbered the bus behind a port: it is about to, where it boots or wakes, or does not find the port. */
export class NotNumbered extends Error {
  override readonly name = 'NotNumbered';
}

export class CarrierPorts {
  readonly #options: CarrierPortsOptions;
  /** Of the ports of one QEMU, which is named; they are all of a kind. */
  #slotControl: { readonly qemu: string; readonly offset: number } | undefined;

  constructor(options: CarrierPortsOptions) {
    this.#options = options;
  }

  /**
   * Whether QEMU leaves hot-plug to the ports themselves. By ACPI, to which a q35's user may have put them and a virt's may have
   * switched over, the guest hears of what is added, and nothing is taken out without it.
   */
  async arePlugging(): Promise<boolean> {
    const { index, monitor } = this.#options;
    const id = carrierPortId(index, 0);
    const port = `${PERIPHERALS}/${id}`;
    const bus = { path: `${port}/${id}`, property: 'hotplug-handler' };
    return (await monitor.ask('qom-get', text, bus)) === port;
  }

  /** Asks where the guest has its functions, which takes long where they are many. */
  async look(): Promise<void> {
    const { buses, monitor } = this.#options;
    await buses.refresh(monitor);
  }

  /** Where the guest has a port, as last looked; anew where the machine was reset since. */
  async find(port: number, config: Config): Promise<CarrierPort> {
    const { index } = this.#options;
    if (this.#function(port) === undefined) {
      await this.look();
    }
    const routingId = this.#function(port)?.routingId;
    if (routingId === undefined) {
      throw new Error(`QEMU has no ${carrierPortId(index, port)}`);
    }
    const slotControl = await this.#slotControlOf(port, routingId, config);
    return { ...this.#function(port)!, slotControl };
  }

  /** Throws where the machine was reset, or its buses numbered anew, since the port was found. */
  check(port: number, { routingId, secondaryBus }: CarrierPort): void {
    const found = this.#function(port);
    if (found?.routingId !== routingId || found.secondaryBus !== secondaryBus) {
      throw new Error('the machine was reset meanwhile');
    }
  }

  /** Throws NotNumbered, by what was seen when last looked. */
  checkNumbered(port: number): void {
    if (this.#function(port)?.secondaryBus === 0) {
      const id = carrierPortId(this.#options.index, port);
      throw new NotNumbered(`the guest has not numbered the bus behind ${id}`);
    }
  }

  #function(port: number): Omit<CarrierPort, 'slotControl'> | undefined {
    const { buses, index } = this.#options;
    const found = buses.named(carrierPortId(index, port));
    return (
      found && {
        routingId: (found.bus << 8) | (found.slot << 3) | found.function,
        secondaryBus: found.pci_bridge?.bus.secondary ?? 0,
      }
    );
  }

  async #slotControlOf(port: number, routingId: number, config: Config): Promise<number> {
    const { monitor } = this.#options;
    const known = this.#slotControl;
    if (known?.qemu === monitor.identity) {
      return known.offset;
    }
    const offset = await this.#readSlotControl(port, routingId, config);
    this.#slotControl = { qemu: monitor.identity, offset };
    return offset;
  }

  async #readSlotControl(port: number, routingId: number, config: Config): Promise<number> {
    const { index } = this.#options;
    let at = (await config.read(routingId, Header.capabilitiesPointer)) & 0xfc;
    for (let seen = 0; at >= Header.end && seen < MOST_CAPABILITIES; seen++) {
      const header = await config.read(routingId, at);
      if ((header & 0xff) === PciExpress.id) {
        return at + PciExpress.slotControl;
      }
      at = (header >>> 8) & 0xfc;
    }
    throw new Error(`${carrierPortId(index, port)} has no PCI Express capability`);
  }
}
