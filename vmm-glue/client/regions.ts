// A device's regions over a connection: what they are, their memory, and reads and writes in as many messages as the
// server's limit asks for.

import { toNumber } from '../../protocol/record.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { mapMemory } from '../../protocol/unix/memory.ts';
import { Command } from '../../protocol/vfio-user/commands.ts';
import {
  RegionAccess,
  RegionFlag,
  RegionInfo,
  WriteMultiCount,
  WriteMultiEntry,
} from '../../protocol/vfio-user/messages.ts';
import { type DecodedRegionInfo, decodeRegionInfo } from '../../protocol/vfio-user/region-info.ts';
import { type Connection, closeAll } from './connection.ts';
import { ServerProtocolError } from './connection-errors.ts';
import { MappedArea } from './memory.ts';

/** A longer description of a region makes no sense. */
const MAX_INFO_BYTES = 64 * 1024;

/** One of the writes of a REGION_WRITE_MULTI has no more. */
const MAX_MULTI_BYTES = 8;

/** What the server says of a region; the fd, if any, is the caller's. */
export interface RegionDescription {
  readonly info: DecodedRegionInfo;
  readonly fd: number | undefined;
}

/** One of several small writes: 1 to 8 bytes. */
export interface RegionWrite {
  readonly region: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** Asks twice where the reply is long. */
export async function readRegionInfo(
  connection: Connection,
  index: number,
): Promise<RegionDescription> {
  let argsz: number = RegionInfo.size;
  for (;;) {
    const request = { argsz, flags: 0, index, capOffset: 0, size: 0n, offset: 0n };
    const { body, fds } = await connection.call(
      Command.deviceGetRegionInfo,
      RegionInfo.encode(request),
    );
    const [fd, ...surplus] = fds;
    closeAll(surplus);
    try {
      const info = decodeRegionInfo(body);
      if (info.argsz <= argsz || info.argsz > MAX_INFO_BYTES) {
        return { info, fd };
      }
      argsz = info.argsz;
    } catch (error) {
      closeAll(fds.slice(0, 1));
      throw error;
    }
    closeAll(fds.slice(0, 1));
  }
}

/** Maps the parts that the server allows; takes over the fd. */
export function mapAreas(index: number, info: DecodedRegionInfo, fd: number): MappedArea[] {
  const mapped: MappedArea[] = [];
  try {
    if ((info.flags & RegionFlag.mmap) !== 0) {
      const whole = [{ offset: 0, size: info.size }];
      const write = (info.flags & RegionFlag.write) !== 0;
      for (const area of info.areas.length > 0 ? info.areas : whole) {
        const place = { fd, offset: info.offset + area.offset, length: area.size, write };
        mapped.push(new MappedArea(index, area.offset, mapMemory(place)));
      }
    }
    return mapped;
  } catch (error) {
    for (const area of mapped) {
      area.close();
    }
    throw error;
  } finally {
    closeFd(fd);
  }
}

/** `most`: bytes in one message. */
export async function readBytes(
  connection: Connection,
  { region, offset, count }: { region: number; offset: number; count: number },
  most: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(count);
  for (let at = 0; at < count || at === 0; at += most) {
    const piece = Math.min(count - at, most);
    const access = { offset: BigInt(offset + at), region, count: piece };
    const body = await connection.callPlain(Command.regionRead, RegionAccess.encode(access));
    const got = RegionAccess.decode(body).count;
    if (got !== piece || body.length !== RegionAccess.size + piece) {
      throw new ServerProtocolError(
        `${piece} bytes at ${offset + at} of region ${region}: the reply has ${body.length - RegionAccess.size}`,
        'REGION_READ',
      );
    }
    bytes.set(body.subarray(RegionAccess.size), at);
  }
  return bytes;
}

/** `most`: bytes in one message. */
export async function writeBytes(
  connection: Connection,
  { region, offset, bytes }: RegionWrite,
  most: number,
): Promise<void> {
  for (let at = 0; at < bytes.length || at === 0; at += most) {
    const piece = bytes.subarray(at, at + most);
    const body = await connection.callPlain(
      Command.regionWrite,
      regionWriteBody({ region, offset: offset + at, bytes: piece }),
    );
    if (RegionAccess.decode(body).count !== piece.length) {
      throw new ServerProtocolError(
        `${piece.length} bytes at ${offset + at} of region ${region}: the reply counts others`,
        'REGION_WRITE',
      );
    }
  }
}

/** Gives how many the server has done. Rejects with RangeError for a write of no byte, or of more than 8. */
export async function writeMulti(
  connection: Connection,
  writes: readonly RegionWrite[],
): Promise<number> {
  const body = new Uint8Array(WriteMultiCount.size + writes.length * WriteMultiEntry.size);
  WriteMultiCount.encode({ count: BigInt(writes.length) }, body);
  writes.forEach(({ region, offset, bytes }, i) => {
    if (bytes.length === 0 || bytes.length > MAX_MULTI_BYTES) {
      throw new RangeError(
        `REGION_WRITE_MULTI of ${bytes.length} bytes at ${offset} of region ${region}: each write has 1 to ${MAX_MULTI_BYTES}`,
      );
    }
    const data = bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
    const entry = { offset: BigInt(offset), region, count: bytes.length, data };
    WriteMultiEntry.encode(entry, body, WriteMultiCount.size + i * WriteMultiEntry.size);
  });
  const reply = await connection.callPlain(Command.regionWriteMulti, body);
  return toNumber(WriteMultiCount.decode(reply).count, 'count of REGION_WRITE_MULTI');
}

/** The body of a REGION_WRITE. */
export function regionWriteBody({ region, offset, bytes }: RegionWrite): Uint8Array {
  const body = new Uint8Array(RegionAccess.size + bytes.length);
  RegionAccess.encode({ offset: BigInt(offset), region, count: bytes.length }, body);
  body.set(bytes, RegionAccess.size);
  return body;
}
