// Guest memory that the host works with while it makes VFs: the client may unmap it, and its fds be closed, while the main
// thread still works with them.

import { closeFd } from '../../protocol/unix/libc.ts';
import { dupFd } from '../../protocol/unix/memory.ts';
import { openFileIdentity } from '../device/dma-windows.ts';
import type { DmaWindow } from '../device/physical-device.ts';

export class LentMemory {
  /** Copies of clients' fds, one a file: a guest with a virtual IOMMU has thousands of windows into it. */
  readonly #fds = new Map<string, number>();

  /** The windows with fds that stay open until `takeBack`. @throws SyscallError where there are too few fds */
  lend(windows: readonly DmaWindow[]): readonly DmaWindow[] {
    // A client's fd stands for one file no longer than this call.
    const copies = new Map<number, number>();
    return windows.map((window) => {
      const fd = copies.get(window.fd) ?? this.#copyOf(window.fd);
      copies.set(window.fd, fd);
      return { ...window, fd };
    });
  }

  /** The host has what it needs. */
  takeBack(): void {
    for (const fd of this.#fds.values()) {
      closeFd(fd);
    }
    this.#fds.clear();
  }

  #copyOf(fd: number): number {
    const file = openFileIdentity(fd);
    const copy = this.#fds.get(file) ?? dupFd(fd);
    this.#fds.set(file, copy);
    return copy;
  }
}
