// What a stream socket carries, with file descriptors passed along (SCM_RIGHTS), outside of any event loop. It works in one
// fixed piece of memory, and returns -errno.
import { MSG_DONTWAIT, MSG_NOSIGNAL, SOL_SOCKET } from './kernel-numbers.ts';
import { closeFd, ErrnoNumber, pinnedMemory, recvmsg, send, sendmsg } from './libc.ts';

const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_CMSG_CLOEXEC = 0x40000000;

// Offsets in the 64-bit struct msghdr, iovec and cmsghdr; the same on x86-64 and arm64, glibc and musl (little-endian).
const msghdr = { iov: 16, iovLength: 24, control: 32, controlLength: 40, flags: 48, size: 56 };
const iovec = { base: 0, length: 8, size: 16 };
const cmsghdr = { length: 0, level: 8, type: 12, data: 16 };

/** A message buffer with room for fds. One for each thread and direction is enough: nothing outlives a call but `data` and `fds`. */
export class SocketBuffer {
  /** What receive() fills and send() takes from. */
  readonly data: Uint8Array<ArrayBuffer>;
  /** The same bytes as `data`. */
  readonly view: DataView<ArrayBuffer>;
  readonly maxFds: number;
  readonly #discard: (fd: number) => void;
  #received: number[] = [];
  readonly #head: DataView<ArrayBuffer>;
  readonly #dataAddress: bigint;
  readonly #receiveHeader: bigint;
  readonly #sendHeader: bigint;
  readonly #receiveControl: number;
  readonly #sendControl: number;

  /**
   * `bytes` = room for data; `maxFds` = the most fds a message may carry (the kernel's own limit is 253); `discard`
   * closes received fds that no one gets.
   */
  constructor(bytes: number, maxFds = 64, discard: (fd: number) => void = closeFd) {
    this.maxFds = maxFds;
    this.#discard = discard;
    const controlBytes = align8(cmsghdr.data + 4 * maxFds);
    const blockBytes = msghdr.size + iovec.size + controlBytes;
    const dataStart = (2 * blockBytes + 63) & ~63;
    const arena = pinnedMemory(dataStart + bytes);
    this.#head = new DataView(arena.bytes.buffer, 0, dataStart);
    this.data = new Uint8Array(arena.bytes.buffer, dataStart, bytes);
    this.view = new DataView(arena.bytes.buffer, dataStart, bytes);
    this.#dataAddress = arena.address + BigInt(dataStart);
    this.#receiveControl = this.#layOut(arena.address, 0);
    this.#sendControl = this.#layOut(arena.address, blockBytes);
    this.#receiveHeader = arena.address;
    this.#sendHeader = arena.address + BigInt(blockBytes);
    this.#head.setBigUint64(msghdr.size + iovec.length, BigInt(bytes), true);
  }

  /** The fds of the last receive, close-on-exec; the caller owns them and the array. */
  get fds(): number[] {
    return this.#received;
  }

  /**
   * Reads what is there, never waits: bytes (one recvmsg), 0 = the peer closed, or -errno. More fds than `maxFds`, or
   * than this process may open (MSG_CTRUNC): all of them are closed and the result is -EMSGSIZE.
   */
  receive(fd: number): number {
    const head = this.#head;
    if (this.#received.length !== 0) {
      this.#received = [];
    }
    head.setUint32(msghdr.controlLength, cmsghdr.data + 4 * this.maxFds, true);
    let result: number;
    do {
      result = recvmsg(fd, this.#receiveHeader, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (result === -ErrnoNumber.EINTR);
    if (result < 0) {
      return result;
    }
    if (head.getUint32(msghdr.controlLength, true) !== 0) {
      this.#collectFds();
    }
    if ((head.getUint32(msghdr.flags, true) & MSG_CTRUNC) !== 0) {
      for (const received of this.#received) {
        this.#discard(received);
      }
      this.#received = [];
      return -ErrnoNumber.EMSGSIZE;
    }
    return result;
  }

  /** Sends `length` bytes of `data` from `offset`, with fds; never waits, never signals: bytes taken, or -errno. */
  send(fd: number, offset: number, length: number, fds?: readonly number[]): number {
    const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    const withFds = fds !== undefined && fds.length !== 0;
    if (offset < 0 || offset + length > this.data.length) {
      return -ErrnoNumber.EFAULT;
    }
    if (withFds && fds.length > this.maxFds) {
      return -ErrnoNumber.EINVAL;
    }
    const address = offset === 0 ? this.#dataAddress : this.#dataAddress + BigInt(offset);
    if (withFds) {
      this.#prepareSend(address, length, fds);
    }
    for (;;) {
      const result = withFds
        ? sendmsg(fd, this.#sendHeader, flags)
        : send(fd, address, length, flags);
      if (result !== -ErrnoNumber.EINTR) {
        return result;
      }
    }
  }

  // One block = msghdr, iovec, control; returns where the control part is.
  #layOut(address: bigint, start: number): number {
    const iov = start + msghdr.size;
    const control = iov + iovec.size;
    this.#head.setBigUint64(start + msghdr.iov, address + BigInt(iov), true);
    this.#head.setUint32(start + msghdr.iovLength, 1, true);
    this.#head.setBigUint64(start + msghdr.control, address + BigInt(control), true);
    this.#head.setBigUint64(iov + iovec.base, this.#dataAddress, true);
    return control;
  }

  #prepareSend(address: bigint, length: number, fds: readonly number[]): void {
    const head = this.#head;
    const control = this.#sendControl;
    const start = control - iovec.size - msghdr.size;
    head.setBigUint64(start + msghdr.size + iovec.base, address, true);
    head.setUint32(start + msghdr.size + iovec.length, length, true);
    head.setUint32(control + cmsghdr.length, cmsghdr.data + 4 * fds.length, true);
    head.setUint32(control + cmsghdr.level, SOL_SOCKET, true);
    head.setUint32(control + cmsghdr.type, SCM_RIGHTS, true);
    for (let i = 0; i < fds.length; i++) {
      head.setInt32(control + cmsghdr.data + 4 * i, fds[i]!, true);
    }
    head.setUint32(start + msghdr.controlLength, align8(cmsghdr.data + 4 * fds.length), true);
  }

  #collectFds(): void {
    const head = this.#head;
    let at = this.#receiveControl;
    const end = at + head.getUint32(msghdr.controlLength, true);
    while (at + cmsghdr.data <= end) {
      const length = head.getUint32(at + cmsghdr.length, true);
      if (length < cmsghdr.data) {
        return;
      }
      const isFds =
        head.getUint32(at + cmsghdr.level, true) === SOL_SOCKET &&
        head.getUint32(at + cmsghdr.type, true) === SCM_RIGHTS;
      const last = Math.min(at + length, end) - 4;
      for (let slot = at + cmsghdr.data; isFds && slot <= last; slot += 4) {
        this.#received.push(head.getInt32(slot, true));
      }
      at += align8(length);
    }
  }
}

function align8(bytes: number): number {
  return (bytes + 7) & ~7;
}
