// Answers the server's DMA_READ and DMA_WRITE messages from memory that the VMM did not share by a file descriptor.
// Used by client.ts; a VMM that shares all of its memory needs none of it.

import { Errno, WireError } from '../../protocol/errno.ts';
import { toNumber } from '../../protocol/record.ts';
import { Command } from '../../protocol/vfio-user/commands.ts';
import { DmaAccess } from '../../protocol/vfio-user/messages.ts';
import type { IncomingCommand } from './connection.ts';

/** The VMM's memory as the device addresses it; false where a range is not all there. */
export interface MessageDma {
  read(address: bigint, into: Uint8Array): boolean;
  write(address: bigint, from: Uint8Array): boolean;
}

/** Most bytes of one message; a server that asks for more gets E2BIG. */
const MAX_BYTES = 1024 * 1024;

export class DmaServer {
  readonly #memory: MessageDma | undefined;

  constructor(memory: MessageDma | undefined) {
    this.#memory = memory;
  }

  handle(command: IncomingCommand): void {
    try {
      const reply = this.#carryOut(command.command, command.body);
      command.reply(reply);
    } catch (error) {
      command.fail(error instanceof WireError ? error.errno : Errno.EIO);
    }
  }

  #carryOut(command: number, body: Uint8Array): Uint8Array {
    if (this.#memory === undefined) {
      throw new WireError('ENOTSUP', 'message DMA: this client shares its memory by fd only');
    }
    const access = DmaAccess.decode(body);
    const count = toNumber(access.count, 'count of a DMA message');
    if (count > MAX_BYTES) {
      throw new WireError('E2BIG', `message DMA of ${count} bytes: at most ${MAX_BYTES}`);
    }
    if (command === Command.dmaRead) {
      const reply = DmaAccess.encode(access, new Uint8Array(DmaAccess.size + count));
      this.#check(
        this.#memory.read(access.address, reply.subarray(DmaAccess.size)),
        access.address,
      );
      return reply;
    }
    const data = body.subarray(DmaAccess.size);
    if (data.length !== count) {
      throw new WireError('EINVAL', `DMA_WRITE of ${count} bytes carries ${data.length}`);
    }
    this.#check(this.#memory.write(access.address, data), access.address);
    return DmaAccess.encode(access);
  }

  #check(done: boolean, address: bigint): void {
    if (!done) {
      throw new WireError('EFAULT', `message DMA at 0x${address.toString(16)}: no memory there`);
    }
  }
}
