// Config space by a PC's configuration ports, through QEMU's monitor: the guest's CONFIG_ADDRESS is saved before the first
// access, and given back. PCI Local Bus 3.0, "Configuration Mechanism" (CONFIG_ADDRESS 0xCF8, CONFIG_DATA 0xCFC).
import { allCarriedOut, type Config, type ConfigAccess } from './config-access.ts';
import type { Monitor, PortWrite } from './monitor.ts';
import type { ConfigWrite } from './placement.ts';

export const CONFIG_ADDRESS = 0xcf8;
export const CONFIG_DATA = 0xcfc;

export class ConfigPorts implements ConfigAccess {
  readonly #monitor: Pick<Monitor, 'readPort' | 'writePort'>;
  #savedAddress: number | undefined;
  #isAddressChanged = false;

  constructor(monitor: Pick<Monitor, 'readPort' | 'writePort'>) {
    this.#monitor = monitor;
  }

  get borrowed(): number | undefined {
    return this.#savedAddress;
  }

  async whileRunning(): Promise<Config | undefined> {
    return undefined;
  }

  async prepare(): Promise<void> {
    this.#savedAddress ??= await this.#monitor.readPort(CONFIG_ADDRESS);
  }

  /** Reading the address port has no effect on the guest. */
  async warmUp(): Promise<void> {
    await this.#monitor.readPort(CONFIG_ADDRESS);
  }

  commandsFor(writes: readonly ConfigWrite[]): number {
    return 2 * writes.length;
  }

  /** QEMU carries them out in order, and is asked for all at once. */
  async write(writes: readonly ConfigWrite[]): Promise<number> {
    this.#isAddressChanged ||= writes.length > 0;
    const commands = writes.flatMap(portWrites);
    await allCarriedOut(commands.map((write) => this.#monitor.writePort(write)));
    return commands.length;
  }

  async read(routingId: number, register: number): Promise<number> {
    this.#isAddressChanged = true;
    const value = configAddress(routingId, register);
    const [, dword] = await Promise.all([
      this.#monitor.writePort({ port: CONFIG_ADDRESS, width: 4, value }),
      this.#monitor.readPort(CONFIG_DATA),
    ]);
    return dword;
  }

  async giveBack(): Promise<void> {
    const value = this.#savedAddress;
    if (value !== undefined && this.#isAddressChanged) {
      await this.#monitor.writePort({ port: CONFIG_ADDRESS, width: 4, value });
    }
    this.forget();
  }

  inherit(borrowed: number | undefined): void {
    this.#savedAddress = borrowed;
    this.#isAddressChanged = borrowed !== undefined;
  }

  forget(): void {
    this.#savedAddress = undefined;
    this.#isAddressChanged = false;
  }

  close(): void {}
}

/** The value of CONFIG_ADDRESS that selects `register` (a dword) of the function at `routingId` (bus, device, function). */
export function configAddress(routingId: number, register: number): number {
  return (0x8000_0000 | (routingId << 8) | (register & 0xfc)) >>> 0;
}

/** A write to config space by the ports. */
export function portWrites({ routingId, register, width, value }: ConfigWrite): PortWrite[] {
  return [
    { port: CONFIG_ADDRESS, width: 4, value: configAddress(routingId, register) },
    { port: CONFIG_DATA, width, value },
  ];
}
