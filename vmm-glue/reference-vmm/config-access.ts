// A function's config space as a guest's kernel sees it: naturally aligned accesses of 1, 2 and 4 bytes, little-endian.
// The enumeration code stands on this interface, so that a test can record or replay it.

import { RegionIndex } from '../../protocol/vfio-user/commands.ts';
import type { VfioUserClient } from '../client/client.ts';

export type AccessLength = 1 | 2 | 4;

/** Values are unsigned. */
export interface ConfigAccess {
  read(offset: number, length: AccessLength): Promise<number>;
  write(offset: number, length: AccessLength, value: number): Promise<void>;
}

/** Config space behind a vfio-user connection. */
export class ClientConfig implements ConfigAccess {
  readonly #client: VfioUserClient;

  constructor(client: VfioUserClient) {
    this.#client = client;
  }

  async read(offset: number, length: AccessLength): Promise<number> {
    const bytes = await this.#client.readRegion(RegionIndex.config, offset, length);
    return toInteger(bytes);
  }

  async write(offset: number, length: AccessLength, value: number): Promise<void> {
    await this.#client.writeRegion(RegionIndex.config, offset, toBytes(value, length));
  }
}

/** Little-endian bytes (at most 4) to an unsigned number. */
export function toInteger(bytes: Uint8Array): number {
  return bytes.reduceRight((value, byte) => value * 256 + byte, 0);
}

/** An unsigned number to little-endian bytes. */
export function toBytes(value: number, length: AccessLength): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (value >>> (8 * i)) & 0xff);
}
