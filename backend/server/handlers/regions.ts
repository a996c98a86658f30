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
import type { Request } from '../handler.ts';
import { MAX_DATA_BYTES } from '../limits.ts';
import type { Session } from '../session.ts';
import { answerManyWrites, answerWhenDone, answerWrites, WRITES_OF_A_TURN } from './replies.ts';

const ACCESS_BYTES = 16;
/** What one entry of REGION_WRITE_MULTI has room for. */
const MAX_ENTRY_BYTES = 8;

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
    throw new WireError('EINVAL', `${count} bytes came as ${body.length - 16}`, {
      call: 'REGION_WRITE',
    });
  }
  const data = body.subarray(ACCESS_BYTES);
  return answerWrites(session, body.subarray(0, ACCESS_BYTES), () =>
    session.endpoint.function.writeRegion(region, offset, data),
  );
}

export function regionWriteMulti(session: Session, { body }: Request): number {
  if (session.agreed?.writeMultiple !== true) {
    throw new WireError('ENOTSUP', 'it was not negotiated', { call: 'REGION_WRITE_MULTI' });
  }
  const count = toNumber(WriteMultiCount.decode(body).count, 'number of writes');
  if (body.length !== WriteMultiCount.size + count * WriteMultiEntry.size) {
    throw new WireError('EINVAL', `${count} writes came in ${body.length} bytes`, {
      call: 'REGION_WRITE_MULTI',
    });
  }
  const entries = count > WRITES_OF_A_TURN ? body.slice() : body;
  return answerManyWrites(session, WriteMultiCount.encode({ count: BigInt(count) }), count, (i) =>
    writeEntry(session, entries, i),
  );
}

function writeEntry(session: Session, body: Uint8Array, index: number): void {
  const at = WriteMultiCount.size + index * WriteMultiEntry.size;
  const { region, offset, count } = WriteMultiEntry.decode(body, at);
  if (count > MAX_ENTRY_BYTES) {
    throw new WireError('EINVAL', `write ${index} has ${count} bytes`);
  }
  const data = at + WriteMultiEntry.offsetOf('data');
  session.endpoint.function.writeRegion(
    region,
    toNumber(offset, 'region offset'),
    body.subarray(data, data + count),
  );
}

function checkCount(count: number): void {
  if (count > MAX_DATA_BYTES) {
    throw new WireError('EINVAL', `an access of ${count} bytes: at most ${MAX_DATA_BYTES}`);
  }
}
