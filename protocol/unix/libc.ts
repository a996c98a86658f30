// The C library's system calls: the only file that imports koffi but watch-fd.ts, together with its siblings the only way
// to the kernel for things that Node has no call for (fd passing, memory maps, eventfds, ioctls).
// Every function returns what the kernel would: a result >= 0 or a negative errno; `check` (syscall-error.ts) makes an error of it.
// Each thread (main, worker) loads this module for itself.
import { constants } from 'node:os';
import koffi, { type KoffiFunc } from 'koffi';
import { SyscallError } from './syscall-error.ts';

/** Linux errno numbers by name (node:os). */
export const { errno: ErrnoNumber } = constants;

/** What a pointer parameter takes: an address, or memory whose address is taken for the call. */
export type Pointer = bigint | Uint8Array | null;

// An enable opens all VFs at once, 255 at most, each with a call or two on the pool; koffi's own limit is 256.
const MOST_ASYNC_CALLS = 4096;
// It can be set only before a thread's first call, which another copy of this module may have made.
if (koffi.config().max_async_calls !== MOST_ASYNC_CALLS) {
  koffi.config({ max_async_calls: MOST_ASYNC_CALLS });
}

const library = koffi.load(null);

// The one place where koffi's untyped functions get a type.
function declare<F extends (...args: never[]) => unknown>(prototype: string): KoffiFunc<F> {
  return library.func(prototype) as unknown as KoffiFunc<F>;
}

const raw = {
  errnoLocation: declare<() => bigint>('void *__errno_location()'),
  close: declare<(fd: number) => number>('int close(int fd)'),
  read: declare<(fd: number, to: Pointer, length: number) => number>(
    'intptr_t read(int fd, void *to, size_t length)',
  ),
  write: declare<(fd: number, from: Pointer, length: number) => number>(
    'intptr_t write(int fd, const void *from, size_t length)',
  ),
  pread: declare<(fd: number, to: Pointer, length: number, offset: number) => number>(
    'intptr_t pread(int fd, void *to, size_t length, int64_t offset)',
  ),
  pwrite: declare<(fd: number, from: Pointer, length: number, offset: number) => number>(
    'intptr_t pwrite(int fd, const void *from, size_t length, int64_t offset)',
  ),
  preadv: declare<(fd: number, places: Pointer, count: number, offset: number) => number>(
    'intptr_t preadv(int fd, const void *places, int count, int64_t offset)',
  ),
  pwritev: declare<(fd: number, places: Pointer, count: number, offset: number) => number>(
    'intptr_t pwritev(int fd, const void *places, int count, int64_t offset)',
  ),
  fallocate: declare<(fd: number, mode: number, offset: number, length: number) => number>(
    'int fallocate(int fd, int mode, int64_t offset, int64_t length)',
  ),
  fcntl: declare<(fd: number, command: number, argument: number) => number>(
    'int fcntl(int fd, int command, intptr_t argument)',
  ),
  fchmod: declare<(fd: number, mode: number) => number>('int fchmod(int fd, uint mode)'),
  ioctlPointer: declare<(fd: number, request: bigint | number, argument: Pointer) => number>(
    'int ioctl(int fd, ulong request, void *argument)',
  ),
  ioctlInteger: declare<(fd: number, request: bigint | number, argument: number) => number>(
    'int ioctl(int fd, ulong request, intptr_t argument)',
  ),
  socket: declare<(domain: number, type: number, protocol: number) => number>(
    'int socket(int domain, int type, int protocol)',
  ),
  socketpair: declare<(domain: number, type: number, protocol: number, pair: Pointer) => number>(
    'int socketpair(int domain, int type, int protocol, void *pair)',
  ),
  bind: declare<(fd: number, address: Pointer, length: number) => number>(
    'int bind(int fd, const void *address, uint length)',
  ),
  listen: declare<(fd: number, backlog: number) => number>('int listen(int fd, int backlog)'),
  accept4: declare<(fd: number, address: Pointer, length: Pointer, flags: number) => number>(
    'int accept4(int fd, void *address, void *length, int flags)',
  ),
  connect: declare<(fd: number, address: Pointer, length: number) => number>(
    'int connect(int fd, const void *address, uint length)',
  ),
  getsockopt: declare<
    (fd: number, level: number, name: number, value: Pointer, length: Pointer) => number
  >('int getsockopt(int fd, int level, int name, void *value, void *length)'),
  shutdown: declare<(fd: number, how: number) => number>('int shutdown(int fd, int how)'),
  send: declare<(fd: number, from: Pointer, length: number, flags: number) => number>(
    'intptr_t send(int fd, const void *from, size_t length, int flags)',
  ),
  sendmsg: declare<(fd: number, message: Pointer, flags: number) => number>(
    'intptr_t sendmsg(int fd, const void *message, int flags)',
  ),
  recvmsg: declare<(fd: number, message: Pointer, flags: number) => number>(
    'intptr_t recvmsg(int fd, void *message, int flags)',
  ),
  poll: declare<(fds: Pointer, count: number, timeout: number) => number>(
    'int poll(void *fds, ulong count, int timeout)',
  ),
  epollCreate: declare<(flags: number) => number>('int epoll_create1(int flags)'),
  epollControl: declare<(epoll: number, operation: number, fd: number, event: Pointer) => number>(
    'int epoll_ctl(int epoll, int operation, int fd, void *event)',
  ),
  epollWait: declare<(epoll: number, events: Pointer, most: number, timeout: number) => number>(
    'int epoll_wait(int epoll, void *events, int most, int timeout)',
  ),
  eventfd: declare<(initial: number, flags: number) => number>(
    'int eventfd(uint initial, int flags)',
  ),
  memfdCreate: declare<(name: string, flags: number) => number>(
    'int memfd_create(const char *name, uint flags)',
  ),
  mmap: declare<
    (
      address: bigint,
      length: number,
      protection: number,
      flags: number,
      fd: number,
      offset: number,
    ) => number | bigint
  >(
    'intptr_t mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)',
  ),
  munmap: declare<(address: bigint, length: number) => number>(
    'int munmap(void *address, size_t length)',
  ),
  flock: declare<(fd: number, operation: number) => number>('int flock(int fd, int operation)'),
  clockGettime: declare<(clock: number, to: Pointer) => number>(
    'int clock_gettime(int clock, void *to)',
  ),
  // Variadic in C, which makes no difference to whole numbers on the processors that this runs on.
  syscall: declare<
    (
      number: number,
      a: number | bigint,
      b: number | bigint,
      c: number | bigint,
      d: number | bigint,
      e: number | bigint,
    ) => number
  >(
    'intptr_t syscall(intptr_t number, intptr_t a, intptr_t b, intptr_t c, intptr_t d, intptr_t e)',
  ),
};

// errno is thread-local, and so is this module: a view of it reads in nanoseconds what koffi.errno() needs a call for.
// It is read in the very function that made the call. At the entry of any other V8 first does what other threads asked of
// this one (new code, a debugger's or a heap snapshot's request), and that leaves an errno of its own.
const errnoCell = new Int32Array(koffi.view(raw.errnoLocation(), 4));

/** read(2): bytes or -errno. */
export function read(fd: number, to: Pointer, length: number): number {
  const result = raw.read(fd, to, length);
  return result < 0 ? -errnoCell[0]! : result;
}

/** write(2): bytes or -errno. SIGPIPE is ignored in Node, so a closed reader is -EPIPE. */
export function write(fd: number, from: Pointer, length: number): number {
  const result = raw.write(fd, from, length);
  return result < 0 ? -errnoCell[0]! : result;
}

/** pread(2): bytes (fewer at the end of the file) or -errno. */
export function pread(fd: number, to: Pointer, length: number, offset: number): number {
  const result = raw.pread(fd, to, length, offset);
  return result < 0 ? -errnoCell[0]! : result;
}

/** pwrite(2): bytes or -errno. */
export function pwrite(fd: number, from: Pointer, length: number, offset: number): number {
  const result = raw.pwrite(fd, from, length, offset);
  return result < 0 ? -errnoCell[0]! : result;
}

/** preadv(2) into `count` iovec structures: bytes (fewer at the end of the file) or -errno. */
export function preadv(fd: number, places: Pointer, count: number, offset: number): number {
  const result = raw.preadv(fd, places, count, offset);
  return result < 0 ? -errnoCell[0]! : result;
}

/** pwritev(2) from `count` iovec structures: bytes or -errno. */
export function pwritev(fd: number, places: Pointer, count: number, offset: number): number {
  const result = raw.pwritev(fd, places, count, offset);
  return result < 0 ? -errnoCell[0]! : result;
}

/** fallocate(2), mode 0: reserves room and makes the file that long. */
export function fallocate(fd: number, offset: number, length: number): number {
  const result = raw.fallocate(fd, 0, offset, length);
  return result < 0 ? -errnoCell[0]! : result;
}

const FALLOC_FL_KEEP_SIZE = 0x1;
const FALLOC_FL_PUNCH_HOLE = 0x2;

/** fallocate(2), a hole: the range reads zeros from now on, and takes no room. 0 or -errno. */
export function punchHole(fd: number, offset: number, length: number): number {
  const result = raw.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
  return result < 0 ? -errnoCell[0]! : result;
}

const CLOCK_THREAD_CPUTIME_ID = 3;
const timespec = new BigInt64Array(2);
const timespecBytes = new Uint8Array(timespec.buffer);

/** Milliseconds of CPU time that this thread has had, by clock_gettime(2). */
export function threadCpuMilliseconds(): number {
  raw.clockGettime(CLOCK_THREAD_CPUTIME_ID, timespecBytes);
  return Number(timespec[0]) * 1000 + Number(timespec[1]) / 1e6;
}

/** fcntl(2) with an integer argument. */
export function fcntl(fd: number, command: number, argument: number): number {
  const result = raw.fcntl(fd, command, argument);
  return result < 0 ? -errnoCell[0]! : result;
}

/** fchmod(2). */
export function fchmod(fd: number, mode: number): number {
  const result = raw.fchmod(fd, mode);
  return result < 0 ? -errnoCell[0]! : result;
}

/** socket(2): fd or -errno. */
export function socket(domain: number, type: number): number {
  const result = raw.socket(domain, type, 0);
  return result < 0 ? -errnoCell[0]! : result;
}

/** socketpair(2) into two 32-bit fds at `pair`. */
export function socketpair(domain: number, type: number, pair: Uint8Array): number {
  const result = raw.socketpair(domain, type, 0, pair);
  return result < 0 ? -errnoCell[0]! : result;
}

/** bind(2). */
export function bind(fd: number, address: Uint8Array): number {
  const result = raw.bind(fd, address, address.length);
  return result < 0 ? -errnoCell[0]! : result;
}

/** listen(2). */
export function listen(fd: number, backlog: number): number {
  const result = raw.listen(fd, backlog);
  return result < 0 ? -errnoCell[0]! : result;
}

/** accept4(2): fd or -errno. */
export function accept4(fd: number, flags: number): number {
  const result = raw.accept4(fd, null, null, flags);
  return result < 0 ? -errnoCell[0]! : result;
}

/** connect(2). */
export function connect(fd: number, address: Uint8Array): number {
  const result = raw.connect(fd, address, address.length);
  return result < 0 ? -errnoCell[0]! : result;
}

/** getsockopt(2) of an option that is an int: its value or -errno. */
export function getsockopt(fd: number, level: number, name: number): number {
  const words = new Int32Array([0, 4]);
  const value = new Uint8Array(words.buffer, 0, 4);
  const length = new Uint8Array(words.buffer, 4, 4);
  const result = raw.getsockopt(fd, level, name, value, length);
  return result < 0 ? -errnoCell[0]! : words[0]!;
}

/** getsockopt(2) of an option that is a structure, into memory of its size: 0 or -errno. */
export function getsockoptInto(fd: number, level: number, name: number, into: Uint8Array): number {
  const length = new Uint8Array(new Int32Array([into.length]).buffer);
  const result = raw.getsockopt(fd, level, name, into, length);
  return result < 0 ? -errnoCell[0]! : result;
}

/** shutdown(2). */
export function shutdown(fd: number, how: number): number {
  const result = raw.shutdown(fd, how);
  return result < 0 ? -errnoCell[0]! : result;
}

/** send(2): bytes or -errno. */
export function send(fd: number, from: Pointer, length: number, flags: number): number {
  const result = raw.send(fd, from, length, flags);
  return result < 0 ? -errnoCell[0]! : result;
}

/** sendmsg(2) of the msghdr at `message`: bytes or -errno. */
export function sendmsg(fd: number, message: bigint, flags: number): number {
  const result = raw.sendmsg(fd, message, flags);
  return result < 0 ? -errnoCell[0]! : result;
}

/** recvmsg(2) into the msghdr at `message`: bytes or -errno. */
export function recvmsg(fd: number, message: bigint, flags: number): number {
  const result = raw.recvmsg(fd, message, flags);
  return result < 0 ? -errnoCell[0]! : result;
}

/** poll(2) over `count` pollfd structures: how many are ready, or -errno. */
export function poll(fds: bigint, count: number, timeoutMilliseconds: number): number {
  const result = raw.poll(fds, count, timeoutMilliseconds);
  return result < 0 ? -errnoCell[0]! : result;
}

/** epoll_create1(2): fd or -errno. */
export function epollCreate(flags: number): number {
  const result = raw.epollCreate(flags);
  return result < 0 ? -errnoCell[0]! : result;
}

/** epoll_ctl(2) with the epoll_event at `event`: 0 or -errno. */
export function epollControl(epoll: number, operation: number, fd: number, event: bigint): number {
  const result = raw.epollControl(epoll, operation, fd, event);
  return result < 0 ? -errnoCell[0]! : result;
}

/** epoll_wait(2) into `most` epoll_event structures at `events`: how many are ready, or -errno. */
export function epollWait(
  epoll: number,
  events: bigint,
  most: number,
  timeoutMilliseconds: number,
): number {
  const result = raw.epollWait(epoll, events, most, timeoutMilliseconds);
  return result < 0 ? -errnoCell[0]! : result;
}

/** eventfd(2): fd or -errno. */
export function eventfd(initial: number, flags: number): number {
  const result = raw.eventfd(initial, flags);
  return result < 0 ? -errnoCell[0]! : result;
}

/** memfd_create(2): fd or -errno. */
export function memfdCreate(name: string, flags: number): number {
  const result = raw.memfdCreate(name, flags);
  return result < 0 ? -errnoCell[0]! : result;
}

/** mmap(2): the address; throws SyscallError. `address` 0 lets the kernel choose. */
export function mmap(
  address: bigint,
  length: number,
  protection: number,
  flags: number,
  fd: number,
  offset: number,
): bigint {
  const result = raw.mmap(address, length, protection, flags, fd, offset);
  if (result === -1) {
    throw new SyscallError('mmap', errnoCell[0]!);
  }
  return BigInt(result);
}

/** munmap(2). */
export function munmap(address: bigint, length: number): number {
  const result = raw.munmap(address, length);
  return result < 0 ? -errnoCell[0]! : result;
}

/** flock(2). */
export function flock(fd: number, operation: number): number {
  const result = raw.flock(fd, operation);
  return result < 0 ? -errnoCell[0]! : result;
}

/** asm/unistd.h: calls that the C library has no function for. */
const AIO_CALLS: Readonly<Record<string, { setup: number; submit: number; getEvents: number }>> = {
  x64: { setup: 206, submit: 209, getEvents: 208 },
  arm64: { setup: 0, submit: 2, getEvents: 4 },
};
const aioCalls = AIO_CALLS[process.arch];

/** io_setup(2): 0 or -errno; the context is put at `context`, where 0 has to be. */
export function ioSetup(events: number, context: bigint): number {
  if (aioCalls === undefined) {
    return -ErrnoNumber.ENOSYS;
  }
  const result = raw.syscall(aioCalls.setup, events, context, 0, 0, 0);
  return result < 0 ? -errnoCell[0]! : result;
}

/** io_submit(2) of one iocb, whose address is at `pointer`: 1 or -errno. */
export function ioSubmit(context: bigint, pointer: bigint): number {
  if (aioCalls === undefined) {
    return -ErrnoNumber.ENOSYS;
  }
  const result = raw.syscall(aioCalls.submit, context, 1, pointer, 0, 0);
  return result < 0 ? -errnoCell[0]! : result;
}

/** io_getevents(2), which does not wait for any: how many came, as many as `count`, or -errno. */
export function ioGetEvents(context: bigint, count: number, events: bigint): number {
  if (aioCalls === undefined) {
    return -ErrnoNumber.ENOSYS;
  }
  const result = raw.syscall(aioCalls.getEvents, context, 0, count, events, 0);
  return result < 0 ? -errnoCell[0]! : result;
}

/** Closes an fd; throws SyscallError, EBADF, for one that is not open: that is a double close, a bug worth seeing. */
export function closeFd(fd: number): void {
  // Linux has released the fd whatever else it reports: trying again could close somebody else's, and that a file system
  // could not write on (EIO, ENOSPC) is the business of whoever wrote.
  if (raw.close(fd) < 0 && errnoCell[0] === ErrnoNumber.EBADF) {
    throw new SyscallError('close', ErrnoNumber.EBADF);
  }
}

/** ioctl(2): a result >= 0 or -errno. A Uint8Array or a bigint is a pointer, a number is an integer argument. */
export function ioctl(
  fd: number,
  request: bigint | number,
  argument: Uint8Array | bigint | number,
): number {
  const result =
    typeof argument === 'number'
      ? raw.ioctlInteger(fd, request, argument)
      : raw.ioctlPointer(fd, request, argument);
  return result < 0 ? -errnoCell[0]! : result;
}

/** ioctl(2) on a thread of libuv's pool: a result >= 0 or -errno. `argument` must not be changed meanwhile. */
export function ioctlAsync(
  fd: number,
  request: bigint | number,
  argument: Uint8Array | bigint | number,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const done = (error: unknown, result: number): void => {
      // Naming `argument` here keeps its memory alive until the kernel is done with it.
      if (error) {
        reject(new Error(`ioctl of ${typeof argument}: ${error}`));
      } else {
        // koffi has brought the errno of the pool's thread along to this one, for as long as this callback lasts.
        resolve(result < 0 ? -errnoCell[0]! : result);
      }
    };
    if (typeof argument === 'number') {
      raw.ioctlInteger.async(fd, request, argument, done);
    } else {
      const pointer = argument instanceof Uint8Array ? addressOf(argument) : argument;
      raw.ioctlPointer.async(fd, request, pointer, done);
    }
  });
}

/** The address of memory that JavaScript owns; valid as long as the array is referenced. */
export function addressOf(memory: Uint8Array): bigint {
  // Small typed arrays start life inside V8's heap, where they move; asking for the buffer moves them out for good.
  void memory.buffer;
  return koffi.address(memory);
}

/** Zeroed memory that never moves, for structures that the kernel reads and writes; freed with its last reference. */
export function pinnedMemory(bytes: number): { address: bigint; bytes: Uint8Array<ArrayBuffer> } {
  const memory = new Uint8Array(new ArrayBuffer(bytes));
  return { address: addressOf(memory), bytes: memory };
}

/** A no-copy view of `length` bytes at `address`. The memory must outlive every use of the view. */
export function viewMemory(address: bigint, length: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(koffi.view(address, length));
}
