// What the protocol tests do to a loopback function: bus mastering, doorbells, DMA, all by messages on one client.

import { RegionIndex } from '../../protocol/vfio-user/commands.ts';
import type { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { toInteger } from '../../vmm-glue/reference-vmm/config-access.ts';
import { Register } from '../../vmm-glue/reference-vmm/loopback-registers.ts';

const COMMAND = 0x04;
const MEMORY_AND_BUS_MASTER = 0x6;

/** Values of the DMA status register. */
export const DmaStatus = {
  done: 1,
  notMapped: 2,
  busMasterOff: 3,
  badLength: 4,
} as const;

/** Little-endian bytes of a 32-bit value. */
export function u32Bytes(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

export async function readU32At(
  client: VfioUserClient,
  region: number,
  offset: number,
): Promise<number> {
  return toInteger(await client.readRegion(region, offset, 4));
}

/** Command.Memory Space and Bus Master on. */
export async function turnOn(client: VfioUserClient): Promise<void> {
  const value = u32Bytes(MEMORY_AND_BUS_MASTER).subarray(0, 2);
  await client.writeRegion(RegionIndex.config, COMMAND, value);
}

export async function ring(client: VfioUserClient, vector: number): Promise<void> {
  await client.writeRegion(RegionIndex.bar0, Register.doorbell, u32Bytes(vector));
}

/** Runs the copying engine and gives its status register. */
export async function copy(
  client: VfioUserClient,
  source: bigint,
  destination: bigint,
  length: number,
  vector = 0,
): Promise<number> {
  const write = (register: number, value: bigint | number): Promise<void> =>
    client.writeRegion(RegionIndex.bar0, register, u32Bytes(Number(value)));
  await write(Register.sourceLow, source & 0xffffffffn);
  await write(Register.sourceLow + 4, source >> 32n);
  await write(Register.destinationLow, destination & 0xffffffffn);
  await write(Register.destinationLow + 4, destination >> 32n);
  await write(Register.length, length);
  await write(Register.doneVector, vector);
  await write(Register.start, 1);
  return readU32At(client, RegionIndex.bar0, Register.status);
}
