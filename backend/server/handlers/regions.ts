// REGION_READ, REGION_WRITE and REGION_WRITE_MULTI: all that a guest's driver does, but for what it has mapped.

import { WireError } from '../../../protocol/errno.ts';
import { toNumber } from '../../../protocol/record.ts';
import {
  type RegionAccessFields,
  readRegionAccess,
  WriteMultiCount,
  WriteMultiEntry,
  writeRegionAccess,
} from '../../../protocol/vfio-user/messages.ts';
import type { Hold } from '../../device/served-function.ts';
import type { Request } from '../handler.ts';
import { MAX_DATA_BYTES } from '../limits.ts';
import type { Session } from '../session.ts';
import { answerWhenDone, answerWhenOver } from './replies.ts';

const ACCESS_BYTES = 16;

const access: RegionAccessFields = { offset: 0, region: 0, count: 0 };

export function regionRead(session: Session, { body }: Request): number {
  readRegionAccess(body, access);
  const { offset, region, count } = access;
  checkCount(count);
  const served = session.endpoint.function;
  const hold = served.holdRead(region);
  const answer = hold === undefined ? session.reply : new Uint8Array(ACCESS_BYTES + count);
  const data = answer.subarray(ACCESS_BYTES, ACCESS_BYTES + count);
  served.readRegion(region, offset, data);
  writeRegionAccess(answer, 0, offset, region, count);
  if (hold === undefined) {
    return ACCESS_BYTES + count;
  }
  return answerWhenDone(session, answer, (done) =>
    hold.wait(() => {
      // Again: what is there to read may have changed.
      served.readRegion(region, offset, data);
      done();
    }),
  );
}

export function regionWrite(session: Session, { body }: Request): number {
  readRegionAccess(body, access);
  const { offset, region, count } = access;
  checkCount(count);
  if (body.length !== ACCESS_BYTES + count) {
    throw new WireError('EINVAL', `REGION_WRITE of ${count} bytes came with ${body.length - 16}`);
  }
  const data = body.subarray(ACCESS_BYTES);
  const holds = session.endpoint.function.writeRegion(region, offset, data);
  return answerWhenOver(session, body.subarray(0, ACCESS_BYTES), holds);
}

export function regionWriteMulti(session: Session, { body }: Request): number {
  if (session.agreed?.writeMultiple !== true) {
    throw new WireError('ENOTSUP', 'REGION_WRITE_MULTI was not negotiated');
  }
  const count = toNumber(WriteMultiCount.decode(body).count, 'number of writes');
  if (body.length !== WriteMultiCount.size + count * WriteMultiEntry.size) {
    throw new WireError('EINVAL', `REGION_WRITE_MULTI of ${count} writes: ${body.length} bytes`);
  }
  const holds: Hold[] = [];
  for (let i = 0; i < count; i++) {
    const at = WriteMultiCount.size + i * WriteMultiEntry.size;
    const entry = WriteMultiEntry.decode(body, at);
    if (entry.count > 8) {
      throw new WireError('EINVAL', `write ${i} has ${entry.count} bytes`);
    }
    const data = at + WriteMultiEntry.offsetOf('data');
    const held = session.endpoint.function.writeRegion(
      entry.region,
      toNumber(entry.offset, 'region offset'),
      body.subarray(data, data + entry.count),
    );
    holds.push(...held);
  }
  return answerWhenOver(session, WriteMultiCount.encode({ count: BigInt(count) }), holds);
}

function checkCount(count: number): void {
  if (count > MAX_DATA_BYTES) {
    throw new WireError('EINVAL', `an access of ${count} bytes: at most ${MAX_DATA_BYTES}`);
  }
}
