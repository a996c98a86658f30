// What a backend of an ordinary user and root's two small processes say to each other: one request and one reply of fixed
// size in each connection. Neither names a PF or a path, which root's process knows from its own command line. Pure.
import { type RecordOf, record, u16, u32 } from '../../../../protocol/record.ts';

/** Of these messages; another one is refused. */
export const MESSAGE_VERSION = 1;

/** Who answers which: the opener the first three, the writer of `sriov_numvfs` the others. */
export const Operation = {
  openGroup: 1,
  bindVf: 2,
  nameHolder: 3,
  readNumVfs: 4,
  writeNumVfs: 5,
} as const;
export type Operation = (typeof Operation)[keyof typeof Operation];

/** `argument`: the IOMMU group of a VF (1 to 3), 0 (4), a number of VFs (5). */
export const Request = record({ version: u16, operation: u16, argument: u32 }, 'Request');
export type Request = RecordOf<typeof Request>;

/** `errno`: 0, or why not. `value`: the number of VFs (4). Text follows, and with openGroup the group's file (SCM_RIGHTS). */
const ReplyHead = record({ version: u16, operation: u16, errno: u32, value: u32 }, 'Reply');
/** UTF-8, ended by zero bytes; cut off where it is longer. */
const TEXT_BYTES = 116;
export const REPLY_BYTES = ReplyHead.size + TEXT_BYTES;

export interface Reply extends RecordOf<typeof ReplyHead> {
  readonly text: string;
}

/** Writes a reply to the beginning of `into`. */
export function encodeReply(reply: Reply, into: Uint8Array): void {
  into.fill(0, 0, REPLY_BYTES);
  ReplyHead.encode(reply, into);
  // Whole characters only, and one zero byte at least.
  new TextEncoder().encodeInto(reply.text, into.subarray(ReplyHead.size, REPLY_BYTES - 1));
}

/** @throws WireError where there are too few bytes */
export function decodeReply(bytes: Uint8Array): Reply {
  const text = new TextDecoder().decode(bytes.subarray(ReplyHead.size, REPLY_BYTES));
  return { ...ReplyHead.decode(bytes), text: text.replace(/\0.*$/s, '') };
}
