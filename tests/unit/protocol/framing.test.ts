import { describe, expect, it } from 'vitest';
import { Errno } from '../../../protocol/errno.ts';
import {
  encodeFrame,
  encodeHeaderInto,
  type Frame,
  FrameAssembler,
  FramingError,
} from '../../../protocol/vfio-user/framing.ts';
import { HeaderFlag } from '../../../protocol/vfio-user/messages.ts';

const limits = { maxMessageBytes: 4096, maxFds: 4 };
const message = (id: number, length = 0) =>
  encodeFrame({ id, command: 9, flags: HeaderFlag.command }, new Uint8Array(length).fill(id));
const concat = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts));

/** Pushes one chunk and gives the frames with their bodies copied. */
function push(assembler: FrameAssembler, chunk: Uint8Array, fds: number[] = []): Frame[] {
  const frames: Frame[] = [];
  assembler.push(chunk, fds, (frame) => frames.push({ ...frame, body: frame.body.slice() }));
  return frames;
}

/** The FramingError that a push throws. */
function failure(assembler: FrameAssembler, chunk: Uint8Array, fds: number[] = []): FramingError {
  try {
    assembler.push(chunk, fds, () => {});
  } catch (error) {
    return error as FramingError;
  }
  throw new Error('push did not throw');
}

describe('encoding a frame', () => {
  it('puts the header before the body, size counting both', () => {
    const bytes = encodeFrame({ id: 0x0102, command: 5, flags: 1 }, new Uint8Array([7, 8]));
    expect([...bytes]).toEqual([2, 1, 5, 0, 18, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 8]);
  });

  it('sets the Error flag with an errno', () => {
    const bytes = encodeFrame({ id: 1, command: 5, flags: HeaderFlag.reply, error: Errno.EINVAL });
    expect([...bytes.subarray(8)]).toEqual([0x21, 0, 0, 0, 22, 0, 0, 0]);
  });

  it('writes the same header in place', () => {
    const into = new Uint8Array(20).fill(0xee);
    encodeHeaderInto(into, 2, 0xabcd, 0x8003, 0x10203, 0x30, 5);
    expect([...into]).toEqual([
      0xee, 0xee, 0xcd, 0xab, 3, 0x80, 3, 2, 1, 0, 0x30, 0, 0, 0, 5, 0, 0, 0, 0xee, 0xee,
    ]);
  });
});

describe('cutting a stream', () => {
  it('delivers every whole message of a chunk, in order, without copying', () => {
    const chunk = concat(message(1, 3), message(2), message(3, 5));
    const buffers: ArrayBufferLike[] = [];
    const ids: number[] = [];
    new FrameAssembler(limits).push(chunk, [], (frame) => {
      ids.push(frame.id);
      buffers.push(frame.body.buffer);
    });
    expect(ids).toEqual([1, 2, 3]);
    expect(buffers).toEqual([chunk.buffer, chunk.buffer, chunk.buffer]);
  });

  it('puts a message together that arrives byte by byte', () => {
    const assembler = new FrameAssembler(limits);
    const bytes = message(7, 4);
    const frames = [...bytes].flatMap((byte) => push(assembler, new Uint8Array([byte])));
    expect(frames).toMatchObject([{ id: 7, command: 9, body: new Uint8Array([7, 7, 7, 7]) }]);
    expect(assembler.pendingBytes).toBe(0);
  });

  it('goes on in the middle of a chunk after the end of an earlier message', () => {
    const assembler = new FrameAssembler(limits);
    const stream = concat(message(1, 30), message(2, 30), message(3, 30));
    expect(push(assembler, stream.subarray(0, 20))).toEqual([]);
    expect(assembler.pendingBytes).toBe(20);
    expect(push(assembler, stream.subarray(20, 100)).map(({ id }) => id)).toEqual([1, 2]);
    expect(assembler.pendingBytes).toBe(8);
    expect(push(assembler, stream.subarray(100)).map(({ id }) => id)).toEqual([3]);
  });

  it('keeps a copy of a tail, not the chunk that the caller will overwrite', () => {
    const assembler = new FrameAssembler(limits);
    const bytes = message(5, 4);
    const arena = bytes.slice(0, 18);
    push(assembler, arena);
    arena.fill(0xff);
    expect(push(assembler, bytes.subarray(18))[0]!.body).toEqual(new Uint8Array([5, 5, 5, 5]));
  });

  it('tells replies, No_reply and errors from the flags', () => {
    const frame = (flags: number, error = 0) =>
      push(new FrameAssembler(limits), encodeFrame({ id: 1, command: 3, flags, error }))[0];
    expect(frame(0)).toMatchObject({ isReply: false, noReply: false, error: 0 });
    expect(frame(1)).toMatchObject({ isReply: true, error: 0 });
    expect(frame(0x10)).toMatchObject({ isReply: false, noReply: true });
    expect(frame(1, 22)).toMatchObject({ isReply: true, error: 22, flags: 0x21 });
  });

  it('reads an error reply that names no errno as EIO', () => {
    const bytes = encodeFrame({ id: 1, command: 3, flags: 0x21 });
    expect(push(new FrameAssembler(limits), bytes)[0]!.error).toBe(Errno.EIO);
  });

  it('ignores the error field of a message without the Error flag', () => {
    const bytes = encodeFrame({ id: 1, command: 3, flags: 0 });
    bytes[12] = 22;
    expect(push(new FrameAssembler(limits), bytes)[0]!.error).toBe(0);
  });
});

describe('fds', () => {
  it("belong to the message that holds the chunk's last byte", () => {
    const frames = push(new FrameAssembler(limits), concat(message(1), message(2, 8)), [40, 41]);
    expect(frames.map(({ id, fds }) => [id, fds])).toEqual([
      [1, []],
      [2, [40, 41]],
    ]);
  });

  it('that come with the first piece of a message go with the message', () => {
    const assembler = new FrameAssembler(limits);
    const bytes = message(2, 100);
    push(assembler, concat(message(1), bytes.subarray(0, 50)), [40]);
    expect(push(assembler, bytes.subarray(50), [41])).toMatchObject([{ id: 2, fds: [40, 41] }]);
    expect(assembler.takePendingFds()).toEqual([]);
  });

  it('that come with the end of one message and the whole of the next go with the next', () => {
    const assembler = new FrameAssembler(limits);
    const first = message(1, 8);
    push(assembler, first.subarray(0, 10), [40]);
    const frames = push(assembler, concat(first.subarray(10), message(2)), [41]);
    expect(frames.map(({ id, fds }) => [id, fds])).toEqual([
      [1, [40]],
      [2, [41]],
    ]);
  });

  it('of a message that never ends are handed over for closing, once', () => {
    const assembler = new FrameAssembler(limits);
    push(assembler, message(1, 8).subarray(0, 20), [40, 41]);
    expect(assembler.takePendingFds()).toEqual([40, 41]);
    expect(assembler.takePendingFds()).toEqual([]);
  });

  it('more than the limit break the stream and can still be closed', () => {
    const assembler = new FrameAssembler(limits);
    const error = failure(assembler, message(3), [1, 2, 3, 4, 5]);
    expect(error).toBeInstanceOf(FramingError);
    expect(error).toMatchObject({ id: 3, command: 9, code: 'EINVAL' });
    expect(assembler.takePendingFds()).toEqual([1, 2, 3, 4, 5]);
  });

  it('more than the limit in pieces are noticed before the message ends', () => {
    const assembler = new FrameAssembler(limits);
    const bytes = message(3, 50);
    push(assembler, bytes.subarray(0, 8), [1, 2, 3]);
    expect(failure(assembler, bytes.subarray(8, 30), [4, 5]).message).toContain('carries 5 fds');
  });
});

describe('a broken stream', () => {
  const sized = (size: number) => {
    const bytes = message(6);
    new DataView(bytes.buffer).setUint32(4, size, true);
    return bytes;
  };

  it('is one whose message is shorter than a header', () => {
    expect(failure(new FrameAssembler(limits), sized(15))).toMatchObject({
      code: 'EINVAL',
      id: 6,
      command: 9,
      message: 'REGION_READ message 6 says it is 15 bytes long: it must be 16..4096 bytes',
    });
  });

  it('is one whose message is longer than the limit, also when the header comes in pieces', () => {
    expect(failure(new FrameAssembler(limits), sized(4097)).code).toBe('EMSGSIZE');
    const assembler = new FrameAssembler(limits);
    push(assembler, sized(0xffff_ffff).subarray(0, 7));
    expect(failure(assembler, sized(0xffff_ffff).subarray(7)).code).toBe('EMSGSIZE');
  });

  it('has delivered what came before the fault', () => {
    const ids: number[] = [];
    const chunk = concat(message(1), sized(3));
    expect(() => new FrameAssembler(limits).push(chunk, [], ({ id }) => ids.push(id))).toThrow(
      FramingError,
    );
    expect(ids).toEqual([1]);
  });

  it('stays broken, keeps no bytes and loses no fd', () => {
    const assembler = new FrameAssembler(limits);
    failure(assembler, sized(3), [40]);
    expect(failure(assembler, message(1), [41])).toBeInstanceOf(FramingError);
    expect(assembler.pendingBytes).toBe(0);
    expect(assembler.takePendingFds()).toEqual([40, 41]);
  });
});

describe('a chunk that is taken in parts', () => {
  it('is left where its reader stops; the fds come with the last message of the rest', () => {
    const assembler = new FrameAssembler(limits);
    const chunk = concat(message(1), message(2, 8), message(3));
    const taken: Frame[] = [];
    const at = assembler.push(
      chunk,
      [40],
      (frame) => taken.push({ ...frame }),
      () => taken.length < 1,
    );
    expect(at).toBe(message(1).length);
    expect(taken.map(({ id, fds }) => ({ id, fds }))).toEqual([{ id: 1, fds: [] }]);
    const rest = push(assembler, chunk.subarray(at));
    expect(rest.map(({ id, fds }) => ({ id, fds }))).toEqual([
      { id: 2, fds: [] },
      { id: 3, fds: [40] },
    ]);
  });

  it('gives its fds back where the rest is never looked at', () => {
    const assembler = new FrameAssembler(limits);
    assembler.push(
      concat(message(1), message(2)),
      [40, 41],
      () => {},
      () => false,
    );
    expect(assembler.takePendingFds()).toEqual([40, 41]);
  });
});
