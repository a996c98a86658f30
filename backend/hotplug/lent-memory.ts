// Guest memory that the host works with while it makes VFs: the client may unmap it, and its fds be closed, while the main
// thread still works with them.

import { closeFd } from '../../protocol/unix/libc.ts';
import { dupFd } from '../../protocol/unix/memory.ts';
import type { DmaWindow } from '../device/physical-device.ts';

export class LentMemory {
  /** Copies of clients' fds. */
  readonly #fds: number[] = [];

  /** The windows of each VF, with fds of their own. @throws SyscallError where there are too few fds: none is lent. */
  lend(ofVfs: readonly (readonly DmaWindow[])[]): readonly (readonly DmaWindow[])[] {
    try {
      return ofVfs.map((windows) => this.#copy(windows));
    } catch (error) {
      this.takeBack();
      throw error;
    }
  }

  /** The host has what it needs. */
  takeBack(): void {
    for (const fd of this.#fds.splice(0)) {
      closeFd(fd);
    }
  }

  #copy(windows: readonly DmaWindow[]): readonly DmaWindow[] {
    // One for all windows into a file: a guest with a virtual IOMMU has thousands of them.
    const copies = new Map<number, number>();
    return windows.map((window) => {
      const fd = copies.get(window.fd) ?? dupFd(window.fd);
      if (!copies.has(window.fd)) {
        copies.set(window.fd, fd);
        this.#fds.push(fd);
      }
      return { ...window, fd };
    });
  }
}
