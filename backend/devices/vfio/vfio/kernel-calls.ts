// Every call that devices/vfio makes into the kernel's device files, as one port: tests put a made-up kernel behind it.
// Calls give -errno where the kernel refuses, as the kernel does. Used on the main thread; the synchronous ones also
// by VfioFunction on the device thread.
import { close, constants, open } from 'node:fs';
import { Errno } from '../../../../protocol/errno.ts';
import { createEventFd, drainEventFd } from '../../../../protocol/unix/eventfd.ts';
import { closeFd, ioctl, ioctlAsync } from '../../../../protocol/unix/libc.ts';
import { fileIdentity, readAt, writeAt } from '../../../../protocol/unix/memory.ts';
import { watchFd } from '../../../../protocol/unix/watch-fd.ts';

/** The calls that never sleep for long: all that the device thread may use. */
export interface DeviceCalls {
  /** The result (>= 0) or -errno. */
  ioctl(fd: number, request: number, argument: Uint8Array | number): number;
  /** Bytes moved, or -errno. */
  readAt(fd: number, into: Uint8Array, offset: number): number;
  writeAt(fd: number, from: Uint8Array, offset: number): number;
}

export interface KernelCalls extends DeviceCalls {
  /** Opens for reading and writing: an fd or -errno. */
  open(path: string): Promise<number>;
  /** Closes off this thread: the last close of a VFIO device resets it, which takes 0.1 s. */
  close(fd: number): Promise<void>;
  /** As ioctl, off this thread. */
  ioctlLater(fd: number, request: number, argument: Uint8Array | number): Promise<number>;
  /** Tells two files apart: device and inode. */
  fileIdentity(fd: number): string;
  createEventFd(): number;
  /** Calls back on each signal of an eventfd, until the returned function is called, which also closes it. */
  watchEventFd(fd: number, onSignal: () => void): () => void;
}

/** The calls as Linux carries them out. */
export function linuxCalls(): KernelCalls {
  return {
    ioctl: (fd, request, argument) => ioctl(fd, request, argument),
    readAt,
    writeAt,
    open: (path) =>
      new Promise((resolve) => {
        open(path, constants.O_RDWR, (error, fd) =>
          resolve(error ? (error.errno ?? -Errno.EIO) : fd),
        );
      }),
    close: (fd) => new Promise((resolve) => close(fd, () => resolve())),
    ioctlLater: (fd, request, argument) => ioctlAsync(fd, request, argument),
    fileIdentity,
    createEventFd,
    watchEventFd(fd, onSignal) {
      const stop = watchFd(fd, () => {
        if (drainEventFd(fd) > 0n) {
          onSignal();
        }
      });
      return () => {
        stop();
        closeFd(fd);
      };
    },
  };
}
