// Guest memory that the host works with while it makes VFs: the client may unmap it, and its fds be closed, while the main
// thread still works with them.

import { closeFd } from '../../protocol/unix/libc.ts';
import { dupFd } from '../../protocol/unix/memory.ts';
import { type Later, WINDOWS_OF_A_TURN } from '../device/client-memory.ts';
import { openFileIdentity } from '../device/dma-windows.ts';
import type { DmaWindow, ExpectedMemory, HostError, HostLink } from '../device/physical-device.ts';
import type { VirtualFunction } from '../device/virtual-function.ts';

export class LentMemory {
  /** Copies of clients' fds, one a file: a guest with a virtual IOMMU has thousands of windows into it. */
  readonly #fds = new Map<string, number>();

  /**
   * Tells the host what the clients of these VFs have mapped: VF after VF, and after so many windows the others have their
   * turn. What is told in a turn is one message. `failed` hears of what the host did not take.
   */
  handOver(
    vfs: readonly VirtualFunction[],
    host: HostLink,
    later: Later,
    failed: (error: HostError) => void,
    done: (error?: Error) => void,
  ): void {
    let told: ExpectedMemory[] = [];
    let sinceTurn = 0;
    const send = (): void => {
      if (told.length > 0) {
        host.request('expectMemory', [told], (error) => {
          if (error !== undefined) {
            failed(error);
          }
        });
      }
      told = [];
      sinceTurn = 0;
    };
    const endTurn: Later = (rest) => {
      send();
      later(rest);
    };
    const handOver = (at: number): void => {
      const vf = vfs[at];
      if (vf === undefined) {
        send();
        done();
        return;
      }
      const tell = (windows: readonly DmaWindow[]): void => {
        sinceTurn += windows.length;
        told.push({ index: vf.index, windows: this.#lend(windows) });
      };
      vf.memory.handOver(tell, endTurn, (error) => {
        const next = (): void => handOver(at + 1);
        if (error !== undefined) {
          this.takeBack();
          done(error);
        } else if (sinceTurn >= WINDOWS_OF_A_TURN) {
          endTurn(next);
        } else {
          next();
        }
      });
    };
    handOver(0);
  }

  /** The windows with fds that stay open until `takeBack`. @throws SyscallError where there are too few fds */
  #lend(windows: readonly DmaWindow[]): readonly DmaWindow[] {
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
