import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { socketPair } from '../../../../protocol/unix/fd-socket.ts';
import {
  closeFd,
  ErrnoNumber,
  ioctl,
  ioctlAsync,
  pinnedMemory,
  read,
  write,
} from '../../../../protocol/unix/libc.ts';
import { check, SyscallError } from '../../../../protocol/unix/syscall-error.ts';

const FIONREAD = 0x541b;
const TUNGETIFF = 0x800454d2;

describe('check', () => {
  it('passes a result through', () => {
    expect(check('read', 0)).toBe(0);
    expect(check('read', 17)).toBe(17);
  });

  it('throws an error that names the call, the path and the errno', () => {
    const failing = () => check('open', -ErrnoNumber.ENOENT, '/no/such');
    expect(failing).toThrow(SyscallError);
    expect(failing).toThrow('open /no/such: no such file or directory (ENOENT)');
    expect(new SyscallError('open', ErrnoNumber.EACCES, '/x')).toMatchObject({
      errno: 13,
      code: 'EACCES',
      call: 'open',
      path: '/x',
    });
  });

  it('names an errno that Linux does not define by its number', () => {
    expect(new SyscallError('read', 9999).code).toBe('errno 9999');
    // Node has no name for it.
    expect(new SyscallError('sendmsg', 109).message).toMatch(
      /^sendmsg: refused \(ETOOMANYREFS\); raise its limit on open files/,
    );
  });
});

describe('descriptors', () => {
  it('reports a double close', () => {
    const [a, b] = socketPair();
    closeFd(a);
    expect(() => closeFd(a)).toThrow('EBADF');
    closeFd(b);
  });

  it('reads and writes from any part of an array, however small', () => {
    const [a, b] = socketPair();
    const outer = Uint8Array.from([1, 2, 3, 4, 5]);
    expect(write(a, outer.subarray(1, 4), 3)).toBe(3);
    const into = new Uint8Array(6);
    expect(read(b, into.subarray(2), 4)).toBe(3);
    expect([...into]).toEqual([0, 0, 2, 3, 4, 0]);
    closeFd(a);
    closeFd(b);
  });

  it('gives the errno of the call that failed, not of an earlier one', () => {
    const [a, b] = socketPair();
    for (let i = 0; i < 1000; i++) {
      expect(read(-1, null, 0)).toBe(-ErrnoNumber.EBADF);
      expect(read(a, new Uint8Array(1), 1)).toBe(-ErrnoNumber.EAGAIN);
    }
    closeFd(a);
    closeFd(b);
  });
});

describe('ioctl', () => {
  let pair: [number, number];
  beforeEach(() => {
    pair = socketPair();
    write(pair[0], Uint8Array.from([1, 2, 3]), 3);
  });
  afterEach(() => pair.forEach(closeFd));

  it('fills an array', () => {
    const count = new Uint8Array(4);
    expect(ioctl(pair[1], FIONREAD, count)).toBe(0);
    expect(count[0]).toBe(3);
  });

  it('takes an address as a bigint', () => {
    const count = pinnedMemory(4);
    expect(ioctl(pair[1], FIONREAD, count.address)).toBe(0);
    expect(count.bytes[0]).toBe(3);
  });

  it('takes a request above 2^31', () => {
    expect(ioctl(pair[1], TUNGETIFF, new Uint8Array(64))).toBe(-ErrnoNumber.ENOTTY);
    expect(ioctl(pair[1], BigInt(TUNGETIFF), 0)).toBe(-ErrnoNumber.ENOTTY);
  });

  it('gives the negative errno', () => {
    expect(ioctl(-1, FIONREAD, 0)).toBe(-ErrnoNumber.EBADF);
    expect(ioctl(pair[1], FIONREAD, 8n)).toBe(-ErrnoNumber.EFAULT);
  });

  it('works on the thread pool alike, errno included', async () => {
    const count = new Uint8Array(4);
    const results = await Promise.all([
      ioctlAsync(pair[1], FIONREAD, count),
      ioctlAsync(-1, FIONREAD, 0),
      ioctlAsync(pair[1], FIONREAD, 8n),
      ioctlAsync(pair[1], TUNGETIFF, new Uint8Array(64)),
      ioctlAsync(pair[1], BigInt(TUNGETIFF), 0),
    ]);
    expect(results).toEqual([
      0,
      -ErrnoNumber.EBADF,
      -ErrnoNumber.EFAULT,
      -ErrnoNumber.ENOTTY,
      -ErrnoNumber.ENOTTY,
    ]);
    expect(count[0]).toBe(3);
  });

  it('takes as many calls at once as an enable of all VFs makes', async () => {
    const calls = Array.from({ length: 1024 }, () => ioctlAsync(-1, FIONREAD, 0));
    expect(new Set(await Promise.all(calls))).toEqual(new Set([-ErrnoNumber.EBADF]));
  });

  it('keeps its argument alive while the pool is busy', async () => {
    const calls = Array.from({ length: 200 }, () => {
      const count = new Uint8Array(4);
      return ioctlAsync(pair[1], FIONREAD, count).then(() => count[0]);
    });
    expect(new Set(await Promise.all(calls))).toEqual(new Set([3]));
  });
});
