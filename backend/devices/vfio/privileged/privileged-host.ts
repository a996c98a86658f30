// The backend's side of root's two small processes: asks them for what its own user may not do. Each question is a connection
// of its own, so that one which is started anew is found again. Made by linuxContext.

import type { Clock } from '../../../../protocol/clock.ts';
import { Errno } from '../../../../protocol/errno.ts';
import { ExclusiveQueue } from '../../../../protocol/exclusive-queue.ts';
import { closeConnection, connectUnix } from '../../../../protocol/unix/fd-socket.ts';
import { ErrnoNumber } from '../../../../protocol/unix/libc.ts';
import { SocketBuffer } from '../../../../protocol/unix/socket-buffer.ts';
import { SyscallError } from '../../../../protocol/unix/syscall-error.ts';
import { watchFd } from '../../../../protocol/unix/watch-fd.ts';
import { HostError } from '../../../device/physical-device.ts';
import { type NumVfs, type NumVfsAccess, NumVfsWriter } from '../vfs/numvfs-writer.ts';
import {
  decodeReply,
  MESSAGE_VERSION,
  Operation,
  REPLY_BYTES,
  type Reply,
  Request,
} from './messages.ts';

/** The processes' sockets, in a folder of their own for each PF. */
export const OPENER_SOCKET = 'opener.sock';
export const WRITER_SOCKET = 'writer.sock';

/** Of a read of `sriov_numvfs`: the question may be what has the writer start first, which says nothing about the kernel. */
const READ_PATIENCE_MILLISECONDS = 60_000;

interface Told extends Reply {
  /** The file that came along; the caller owns it. */
  readonly fd?: number;
}

export class PrivilegedHost {
  readonly #folder: string;
  readonly #clock: Clock;
  readonly #buffer = new SocketBuffer(REPLY_BYTES, 1);
  /** Of the opener: it does one thing at a time, and its socket has room for so many. */
  readonly #opens = new ExclusiveQueue();

  /** `folder`: where the sockets are. */
  constructor(folder: string, clock: Clock) {
    this.#folder = folder;
    this.#clock = clock;
  }

  /** The file of an IOMMU group of a VF: an fd or -errno. @throws HostError where nobody answers */
  async openGroup(group: string): Promise<number> {
    const { errno, fd } = await this.#askOpener(Operation.openGroup, group);
    return errno === 0 ? (fd ?? -Errno.EPROTO) : -errno;
  }

  /** Gives a VF to vfio-pci, by its IOMMU group. @throws HostError */
  async bindVf(group: string): Promise<void> {
    const { errno } = await this.#askOpener(Operation.bindVf, group);
    if (errno !== 0) {
      throw new HostError('bind', errno, `group ${group}`, 'root’s opener cannot bind it');
    }
  }

  /** Who holds an IOMMU group of a VF, for a sentence. @throws HostError where nobody answers */
  async holderOf(group: string): Promise<string> {
    const { errno, text } = await this.#askOpener(Operation.nameHolder, group);
    return errno === 0 && text !== '' ? text : 'a process that cannot be seen';
  }

  /** The PF's `sriov_numvfs`, at `path`. */
  numVfs(path: string): NumVfs {
    const access: NumVfsAccess = {
      up: Promise.resolve(),
      ask: async (count) => {
        const { errno, value } = await (count === undefined
          ? this.#ask(WRITER_SOCKET, Operation.readNumVfs, 0)
          : this.#ask(WRITER_SOCKET, Operation.writeNumVfs, count));
        return errno === 0 ? { value } : { errno };
      },
      close: () => {},
    };
    return new NumVfsWriter(path, access, this.#clock, READ_PATIENCE_MILLISECONDS);
  }

  #askOpener(operation: Operation, group: string): Promise<Told> {
    return this.#opens.run(() => this.#ask(OPENER_SOCKET, operation, Number(group)));
  }

  async #ask(name: string, operation: Operation, argument: number): Promise<Told> {
    const path = `${this.#folder}/${name}`;
    const socket = connectTo(path);
    try {
      Request.encode({ version: MESSAGE_VERSION, operation, argument }, this.#buffer.data);
      const sent = this.#buffer.send(socket, 0, Request.size);
      const told = sent === Request.size ? await this.#answer(socket) : undefined;
      if (told === undefined) {
        throw new HostError('recv', Errno.EPIPE, path, 'root’s process ended without an answer');
      }
      if (told.version !== MESSAGE_VERSION || told.errno === Errno.EPROTO) {
        throw new HostError(
          'recv',
          Errno.EPROTO,
          path,
          'root’s process is of another version of this program',
          'start both anew, from one version',
        );
      }
      return told;
    } finally {
      closeConnection(socket);
    }
  }

  /** The one reply, which comes as a whole; undefined where there is none. */
  #answer(socket: number): Promise<Told | undefined> {
    return new Promise((resolve) => {
      const stop = watchFd(socket, () => {
        const length = this.#buffer.receive(socket);
        if (length === -ErrnoNumber.EAGAIN) {
          return;
        }
        stop();
        const [fd] = this.#buffer.fds;
        resolve(
          length === REPLY_BYTES
            ? { ...decodeReply(this.#buffer.data), ...(fd === undefined ? {} : { fd }) }
            : undefined,
        );
      });
    });
  }
}

function connectTo(path: string): number {
  try {
    return connectUnix(path);
  } catch (error) {
    if (!(error instanceof SyscallError)) {
      throw error;
    }
    throw new HostError(
      'connect',
      error.errno,
      path,
      'root’s process does not listen there for this user',
      'start vfio-user-sriov-opener@PF.socket and vfio-user-sriov-writer@PF.socket, or `vfio-user-sriov privileged` as root',
    );
  }
}
