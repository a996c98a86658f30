// Signals eventfds of a peer's. A write to one may wait, for ever, where it is blocking and full; to poll it first leaves a
// gap in which the peer may fill it, and its flags are the peer's to change at any time. So the kernel signals it, as it does
// for a device's interrupt, which never waits: an asynchronous read of nothing (io_submit(2)) names the eventfd that is to be
// signalled when it is done, and it is done at once.

import { signalEventFd } from './eventfd.ts';
import {
  closeFd,
  ErrnoNumber,
  ioGetEvents,
  ioSetup,
  ioSubmit,
  memfdCreate,
  pinnedMemory,
} from './libc.ts';

const MFD_CLOEXEC = 1;
/** Reads that are done, and that the kernel has not been asked for yet. */
const MOST_EVENTS = 64;
/** linux/aio_abi.h, struct io_event and struct iocb; operation 0 is a read. */
const IO_EVENT_BYTES = 32;
const iocb = { size: 64, fildes: 20, flags: 56, eventFd: 60 };
const IOCB_FLAG_RESFD = 1;
const POINTER_BYTES = 8;

/**
 * Adds 1, and never waits. False where `fd` is no eventfd. Where the kernel refuses asynchronous reads (seccomp,
 * fs.aio-max-nr), it is polled and written to.
 */
export function signalPeerEventFd(fd: number): boolean {
  return signaller === undefined ? signalEventFd(fd) : signaller.signal(fd);
}

function makeSignaller(): Signaller | undefined {
  const context = pinnedMemory(8);
  const file = memfdCreate('empty', MFD_CLOEXEC);
  if (file < 0) {
    return undefined;
  }
  if (ioSetup(MOST_EVENTS, context.address) < 0) {
    closeFd(file);
    return undefined;
  }
  return new Signaller(new DataView(context.bytes.buffer).getBigUint64(0, true), file);
}

class Signaller {
  readonly #context: bigint;
  readonly #memory = pinnedMemory(iocb.size + POINTER_BYTES + MOST_EVENTS * IO_EVENT_BYTES);
  readonly #view = new DataView(this.#memory.bytes.buffer);
  readonly #pointer = this.#memory.address + BigInt(iocb.size);
  readonly #events = this.#pointer + BigInt(POINTER_BYTES);

  constructor(context: bigint, file: number) {
    this.#context = context;
    this.#view.setInt32(iocb.fildes, file, true);
    this.#view.setUint32(iocb.flags, IOCB_FLAG_RESFD, true);
    this.#view.setBigUint64(iocb.size, this.#memory.address, true);
  }

  signal(fd: number): boolean {
    this.#view.setInt32(iocb.eventFd, fd, true);
    let result = ioSubmit(this.#context, this.#pointer);
    if (result === -ErrnoNumber.EAGAIN) {
      ioGetEvents(this.#context, MOST_EVENTS, this.#events);
      result = ioSubmit(this.#context, this.#pointer);
    }
    return result === 1;
  }
}

/** Of this thread. */
const signaller = makeSignaller();
