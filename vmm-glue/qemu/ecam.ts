// Config space as memory (PCIe Base 4.0, "PCI Express Enhanced Configuration Access Mechanism"): QEMU's monitor cannot write
// to memory, its qtest object can. That is made by QMP when it is wanted.
import { resolve } from 'node:path';
import { monotonicNanoseconds } from '../../protocol/unix/process-clock.ts';
import { UserError } from '../../protocol/user-error.ts';
import { qomProperties, text, whole } from './answers.ts';
import { allCarriedOut, type ConfigAccess } from './config-access.ts';
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
  /** The guest does not notice: an access has no state. */
  readonly borrowed = undefined;
  readonly #monitor: Monitor;
  #window: EcamWindow | undefined;
  #client: QtestClient | undefined;

  constructor(monitor: Monitor) {
    this.#monitor = monitor;
  }

  /**
   * Of a virt, whose config space is always at one place. Rejects with UserError where QEMU shows no such memory, or does not let
   * it be written to.
   */
  static async ofVirt(monitor: Monitor): Promise<Ecam> {
    const ecam = new Ecam(monitor);
    await ecam.connect(await findWindow(monitor));
    return ecam;
  }

  /** Config space is there. Rejects with UserError where QEMU does not let it be written to. */
  async connect(window: EcamWindow): Promise<void> {
    this.#window = window;
    await this.prepare();
  }

  async whileRunning(): Promise<this> {
    await this.prepare();
    return this;
  }

  /**
   * Connects, where the connection is not there. The socket of an earlier glue is as good: a QEMU (seen with 11.1) answers one
   * qtest object alone in its life, and nobody who makes another.
   */
  async prepare(): Promise<void> {
    if (this.#client?.isOpen === true) {
      return;
    }
    const path = `${resolve(this.#monitor.path)}.config`;
    const earlier = await QtestClient.connect(path, this.#monitor.clock).catch(() => undefined);
    this.#client = earlier ?? (await this.#make(path));
    try {
      await this.read(0, 0);
    } catch (error) {
      this.close();
      throw new UserError(
        `config space of this QEMU: ${(error as Error).message}`,
        'start the VM anew, and have no other program use that socket',
      );
    }
  }

  async #make(path: string): Promise<QtestClient> {
    const address = { type: 'unix', data: { path } };
    const data = { addr: address, server: true, wait: false };
    try {
      await this.#monitor.execute('chardev-add', {
        id: CHARDEV,
        backend: { type: 'socket', data },
      });
    } catch (error) {
      throw error instanceof QmpError ? noQtest(error) : error;
    }
    try {
      await this.#monitor.execute('object-add', {
        'qom-type': 'qtest',
        id: OBJECT,
        chardev: CHARDEV,
        log: '/dev/null',
      });
    } catch (error) {
      await this.#remove('chardev-remove', CHARDEV);
      throw error instanceof QmpError ? noQtest(error) : error;
    }
    return await QtestClient.connect(path, this.#monitor.clock).catch(async (error: Error) => {
      await this.#remove('object-del', OBJECT);
      await this.#remove('chardev-remove', CHARDEV);
      throw new UserError(
        `the socket ${path} that QEMU was told to open: ${error.message}`,
        'run the glue where it sees the folder of the QMP socket as QEMU does',
      );
    });
  }

  async warmUp(): Promise<void> {
    await this.prepare();
    await this.read(0, 0);
  }

  commandsFor(writes: readonly ConfigWrite[]): number {
    return blocksOf(writes).length;
  }

  async write(writes: readonly ConfigWrite[]): Promise<number> {
    const commands = blocksOf(writes).map((block) => this.#command(block));
    await allCarriedOut(commands.map((command) => this.#execute(command)));
    return commands.length;
  }

  async read(routingId: number, register: number): Promise<number> {
    const address = this.#addressOf(routingId, register & ~3);
    const command = `readl 0x${address.toString(16)}`;
    const answer = await this.#execute(command);
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

  /** QEMU carries a block out as accesses of four bytes. */
  #command(block: readonly ConfigWrite[]): string {
    const [{ routingId, register, width, value }] = block as [ConfigWrite];
    const address = `0x${this.#addressOf(routingId, register).toString(16)}`;
    if (block.length === 1) {
      return `${width === 2 ? 'writew' : 'writel'} ${address} 0x${value.toString(16)}`;
    }
    const bytes = Buffer.alloc(block.length * width);
    for (const [index, each] of block.entries()) {
      bytes.writeUInt32LE(each.value, index * width);
    }
    return `write ${address} 0x${bytes.length.toString(16)} 0x${bytes.toString('hex')}`;
  }

  async #execute(command: string): Promise<string> {
    if (this.#client === undefined) {
      throw new Error('config space was to be accessed before it was connected to');
    }
    const askedAt = monotonicNanoseconds();
    const answer = await this.#client.execute(command);
    this.#monitor.answered(command, askedAt);
    return answer;
  }

  #addressOf(routingId: number, register: number): number {
    const { address, size } = this.#window ?? { address: 0, size: 0 };
    const offset = routingId * FUNCTION_BYTES + register;
    if (offset >= size) {
      const bus = (routingId >> 8).toString(16);
      throw new Error(
        `bus ${bus}: this machine has config space for ${size / FUNCTION_BYTES / 256} buses`,
      );
    }
    return address + offset;
  }

  /** It may not be there. */
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

/** Dwords that follow each other, together. */
function blocksOf(writes: readonly ConfigWrite[]): ConfigWrite[][] {
  const blocks: ConfigWrite[][] = [];
  for (const write of writes) {
    const block = blocks.at(-1);
    const last = block?.at(-1);
    const follows =
      last?.routingId === write.routingId &&
      last.width === 4 &&
      write.width === 4 &&
      write.register === last.register + 4;
    if (follows) {
      block!.push(write);
    } else {
      blocks.push([write]);
    }
  }
  return blocks;
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
