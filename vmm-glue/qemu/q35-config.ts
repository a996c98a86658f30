// Config space of a q35, which has it in both ways: as memory (ecam.ts), where one command writes all BARs of a function, once
// its firmware has said where; by the PC's ports (config-ports.ts), two commands a register, until then, and where QEMU has no
// qtest to give. Asked anew in each pause: the guest may move that memory.
import type { Log } from '../../protocol/log.ts';
import { UserError } from '../../protocol/user-error.ts';
import { address, whole } from './answers.ts';
import type { Config, ConfigAccess } from './config-access.ts';
import { ConfigPorts } from './config-ports.ts';
import { Ecam, type EcamWindow } from './ecam.ts';
import type { Monitor } from './monitor.ts';
import type { ConfigWrite } from './placement.ts';
import { QmpError } from './qmp.ts';

const HOST_BRIDGE = '/machine/q35';
/** PCIEXBAR, as an address; 2^64 - 1 while the guest has switched it off. */
const BASE = 'MCFG';
const SIZE = 'mcfg_size';

export class Q35Config implements ConfigAccess {
  readonly #monitor: Monitor;
  readonly #log: Log;
  readonly #ports: ConfigPorts;
  #memory: Ecam | undefined;
  #window: EcamWindow | undefined;
  /** What this pause goes by. */
  #chosen: ConfigAccess | undefined;

  constructor(monitor: Monitor, log: Log) {
    this.#monitor = monitor;
    this.#log = log;
    this.#ports = new ConfigPorts(monitor);
    this.#memory = new Ecam(monitor);
  }

  get borrowed(): number | undefined {
    return this.#ports.borrowed;
  }

  async whileRunning(): Promise<Config | undefined> {
    const chosen = await this.#choose();
    return await chosen.whileRunning();
  }

  async prepare(): Promise<void> {
    this.#chosen ??= await this.#choose();
    await this.#chosen.prepare();
  }

  async warmUp(): Promise<void> {
    const chosen = await this.#choose();
    await chosen.warmUp();
  }

  commandsFor(writes: readonly ConfigWrite[]): number {
    return this.#access.commandsFor(writes);
  }

  async write(writes: readonly ConfigWrite[]): Promise<number> {
    return await this.#access.write(writes);
  }

  async read(routingId: number, register: number): Promise<number> {
    return await this.#access.read(routingId, register);
  }

  async giveBack(): Promise<void> {
    await this.#ports.giveBack();
  }

  inherit(borrowed: number | undefined): void {
    this.#ports.inherit(borrowed);
  }

  forget(): void {
    this.#ports.forget();
    this.#chosen = undefined;
  }

  close(): void {
    this.#memory?.close();
  }

  get #access(): ConfigAccess {
    if (this.#chosen === undefined) {
      throw new Error('config space was to be accessed before it was looked for');
    }
    return this.#chosen;
  }

  /** Rejects where QEMU is out of reach. */
  async #choose(): Promise<ConfigAccess> {
    const memory = this.#memory;
    if (memory === undefined) {
      return this.#ports;
    }
    try {
      const window = await this.#findWindow();
      if (window === undefined) {
        return this.#ports;
      }
      await memory.connect(window);
      return memory;
    } catch (error) {
      if (!(error instanceof QmpError || error instanceof UserError)) {
        throw error;
      }
      this.#log.info(`VFs are placed by the PC's configuration ports: ${error.message}`);
      memory.close();
      this.#memory = undefined;
      return this.#ports;
    }
  }

  /** Undefined while the guest has none. */
  async #findWindow(): Promise<EcamWindow | undefined> {
    const of = (property: string) => ({ path: HOST_BRIDGE, property });
    const base = await this.#monitor.ask('qom-get', address, of(BASE));
    if (!Number.isSafeInteger(base)) {
      this.#window = undefined;
    } else if (base !== this.#window?.address) {
      const size = await this.#monitor.ask('qom-get', whole, of(SIZE));
      this.#window = { address: base, size };
    }
    return this.#window;
  }
}
