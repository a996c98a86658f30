// Config space as memory (PCIe Base 4.0, "PCI Express Enhanced Configuration Access Mechanism"), of a machine without
// configuration ports: QEMU's monitor cannot write to memory, its qtest object can. That is made by QMP when it is wanted.
import { rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { UserError } from '../../protocol/user-error.ts';
import { qomProperties, text, whole } from './answers.ts';
import type { ConfigAccess } from './config-access.ts';
import type { Monitor } from './monitor.ts';
import type { ConfigWrite } from './placement.ts';
import { QmpError } from './qmp.ts';
import { QtestClient } from './qtest.ts';

/** Bytes of config space of a function. */
const FUNCTION_BYTES = 4096;
const UNATTACHED = '/machine/unattached';
const HOST_BRIDGE_TYPE = 'child<gpex-pcihost>';
const REGION = 'pcie-ecam[0]';
const CHARDEV = 'sriov-config';
const OBJECT = 'sriov-config-memory';

/** Where a machine has its config space; in bytes. */
export interface EcamWindow {
  readonly address: number;
  readonly size: number;
}

export class Ecam implements ConfigAccess {
  readonly commandsPerWrite = 1;
  /** The guest does not notice: an access has no state. */
  readonly borrowed = undefined;
  readonly #monitor: Monitor;
  readonly #window: EcamWindow;
  #client: QtestClient | undefined;

  /** Rejects with UserError where QEMU shows no such memory, or does not let it be written to. */
  static async find(monitor: Monitor): Promise<Ecam> {
    const ecam = new Ecam(monitor, await findWindow(monitor));
    await ecam.prepare();
    return ecam;
  }

  constructor(monitor: Monitor, window: EcamWindow) {
    this.#monitor = monitor;
    this.#window = window;
  }

  /** Connects, where the connection is not there: what a glue before this one has left is removed first. */
  async prepare(): Promise<void> {
    if (this.#client?.isOpen === true) {
      return;
    }
    const path = `${resolve(this.#monitor.path)}.config`;
    await this.#remove('object-del', OBJECT);
    await this.#remove('chardev-remove', CHARDEV);
    const address = { type: 'unix', data: { path } };
    const data = { addr: address, server: true, wait: false };
    try {
      await this.#monitor.execute('chardev-add', {
        id: CHARDEV,
        backend: { type: 'socket', data },
      });
      await this.#monitor.execute('object-add', {
        'qom-type': 'qtest',
        id: OBJECT,
        chardev: CHARDEV,
        log: '/dev/null',
      });
    } catch (error) {
      throw error instanceof QmpError ? noQtest(error) : error;
    }
    this.#client = await QtestClient.connect(path).catch((error: Error) => {
      throw new UserError(
        `the socket ${path} that QEMU was told to open: ${error.message}`,
        'run the glue where it sees the folder of the QMP socket as QEMU does',
      );
    });
    // Nobody else is to find it.
    rmSync(path, { force: true });
  }

  async warmUp(): Promise<void> {
    await this.prepare();
    await this.read(0, 0);
  }

  async write(writes: readonly ConfigWrite[]): Promise<void> {
    const client = this.#connected();
    const commands = writes.map(({ routingId, register, width, value }) => {
      const address = this.#addressOf(routingId, register);
      return `${width === 2 ? 'writew' : 'writel'} 0x${address.toString(16)} 0x${value.toString(16)}`;
    });
    const answers = await Promise.allSettled(commands.map((command) => client.execute(command)));
    const failure = answers.find(({ status }) => status === 'rejected');
    if (failure?.status === 'rejected') {
      throw failure.reason;
    }
  }

  async read(routingId: number, register: number): Promise<number> {
    const address = this.#addressOf(routingId, register & ~3);
    const command = `readl 0x${address.toString(16)}`;
    const answer = await this.#connected().execute(command);
    if (!/^0x0{0,8}[0-9a-f]{8}$/.test(answer)) {
      throw new Error(`"${command}" was answered by "${answer.slice(0, 80)}", which is no dword`);
    }
    return Number(answer);
  }

  async giveBack(): Promise<void> {}

  inherit(): void {}

  forget(): void {}

  close(): void {
    this.#client?.close();
  }

  #connected(): QtestClient {
    if (this.#client === undefined) {
      throw new Error('config space was to be accessed before it was connected to');
    }
    return this.#client;
  }

  #addressOf(routingId: number, register: number): number {
    const offset = routingId * FUNCTION_BYTES + register;
    if (offset >= this.#window.size) {
      const bus = (routingId >> 8).toString(16);
      throw new Error(
        `bus ${bus}: this machine has config space for ${this.#window.size / FUNCTION_BYTES / 256} buses`,
      );
    }
    return this.#window.address + offset;
  }

  /** It is not there, as a rule. */
  async #remove(command: string, id: string): Promise<void> {
    try {
      await this.#monitor.execute(command, { id });
    } catch (error) {
      if (!(error instanceof QmpError)) {
        throw error;
      }
    }
  }
}

async function findWindow(monitor: Monitor): Promise<EcamWindow> {
  const parts = await monitor.ask('qom-list', qomProperties, { path: UNATTACHED });
  const bridge = parts.find(({ type }) => type === HOST_BRIDGE_TYPE);
  if (bridge === undefined) {
    const machine = await monitor.ask('qom-get', text, { path: '/machine', property: 'type' });
    throw new UserError(
      `QEMU's ${machine}: its PCI Express config space was not found`,
      'use -machine virt',
    );
  }
  const path = `${UNATTACHED}/${bridge.name}/${REGION}`;
  const get = (property: string): Promise<number> =>
    monitor.ask('qom-get', whole, { path, property });
  return { address: await get('addr'), size: await get('size') };
}

function noQtest(error: QmpError): UserError {
  return new UserError(
    `QEMU does not let config space be written to: ${error.description}`,
    'leave out -qtest and any qtest object: a QEMU has one, and the glue needs it',
  );
}
