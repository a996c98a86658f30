// The physical device behind the port: a PF and its VFs through kernel VFIO, on the main thread. Operations that
// change what exists (VFs, resets of the PF) go one after another; DMA has its own order in each container.
// Made by openVfioDevice.

import { Errno, errnoName } from '../../../../protocol/errno.ts';
import { ExclusiveQueue } from '../../../../protocol/exclusive-queue.ts';
import { askUntil } from '../../../../protocol/retry.ts';
import {
  type DeviceDescription,
  type DmaWindow,
  type ExpectedMemory,
  type HeldVf,
  HostError,
  PF_INDEX,
  type PhysicalDevice,
} from '../../../device/physical-device.ts';
import type { DmaDirector } from '../dma/dma-director.ts';
import type { HostContext } from '../host-context.ts';
import { VfioRequest } from '../vfio/abi.ts';
import type { VfioHandle } from '../vfio/function.ts';
import { handleOf, type OpenFunction } from '../vfio/open-function.ts';
import type { VfSet } from './vf-set.ts';

/** A reset fails at once while the kernel has the device locked; how long it is tried again, and how often. */
const RESET_PATIENCE = { patienceMilliseconds: 5_000, stepMilliseconds: 20 } as const;

export interface VfHostOptions {
  readonly description: DeviceDescription;
  readonly pf: OpenFunction;
  readonly vfs: VfSet;
  readonly dma: DmaDirector;
  /** Set by `onReleaseRequested`, called by whoever watches the functions. */
  readonly releaseRequests: { notify: (index: number) => void };
  /** Ends the helpers, gives back the lock. */
  readonly letGo: () => void;
}

export class VfHost implements PhysicalDevice {
  readonly description: DeviceDescription;
  readonly pf: VfioHandle;
  readonly #context: HostContext;
  readonly #options: VfHostOptions;
  readonly #queue = new ExclusiveQueue();
  #isClosed = false;

  constructor(context: HostContext, options: VfHostOptions) {
    this.#context = context;
    this.#options = options;
    this.description = options.description;
    this.pf = handleOf(options.pf);
  }

  expectMemory(memory: readonly ExpectedMemory[]): Promise<void> {
    return this.#queue.run(async () => this.#options.dma.expect(memory));
  }

  createVfs(count: number): Promise<readonly VfioHandle[]> {
    return this.#queue.run(async () => {
      try {
        return (await this.#options.vfs.create(count)).map(handleOf);
      } catch (error) {
        this.#options.dma.forgetVfs();
        throw error;
      }
    });
  }

  releaseVfs(): Promise<readonly HeldVf[]> {
    return this.#queue.run(() => this.#options.vfs.release());
  }

  destroyVfs(): Promise<void> {
    return this.#queue.run(() => this.#options.vfs.destroy());
  }

  /** A card's storage is its own affair. */
  async syncStorage(): Promise<void> {}

  resetFunction(index: number): Promise<void> {
    // The kernel answers EAGAIN for as long as sriov_numvfs is being written: the PF's reset waits its turn.
    if (index === PF_INDEX) {
      return this.#queue.run(() => this.#reset(this.#options.pf));
    }
    const vf = this.#options.vfs.open.find((open) => open.index === index);
    // A slot whose VF is not there has nothing to reset.
    return vf === undefined ? Promise.resolve() : this.#reset(vf);
  }

  mapDma(index: number, window: DmaWindow): Promise<void> {
    return this.#options.dma.map(index, window);
  }

  unmapDma(index: number, window: DmaWindow): Promise<void> {
    return this.#options.dma.unmap(index, window);
  }

  unmapAllDma(index: number): Promise<void> {
    return this.#options.dma.unmapAll(index);
  }

  onReleaseRequested(callback: (index: number) => void): void {
    this.#options.releaseRequests.notify = callback;
  }

  close(): Promise<void> {
    return this.#queue.run(async () => {
      if (this.#isClosed) {
        return;
      }
      this.#isClosed = true;
      try {
        await this.#removeVfs();
      } finally {
        const { pf, dma, letGo } = this.#options;
        await pf.close();
        await dma.functionClosed(PF_INDEX);
        letGo();
      }
    });
  }

  async #removeVfs(): Promise<void> {
    const { vfs } = this.#options;
    const held = await vfs.release();
    if (held.length > 0) {
      const message = 'VFs stay on the host: somebody holds them; the next start removes them';
      this.#context.log.error(message, { held });
      return;
    }
    if (vfs.exist()) {
      await vfs.destroy();
    }
  }

  async #reset({ deviceFd, bdf }: OpenFunction): Promise<void> {
    const result = await askUntil(
      () => this.#context.calls.ioctlLater(deviceFd, VfioRequest.deviceReset, 0),
      (answer) => answer !== -Errno.EAGAIN,
      { clock: this.#context.clock, ...RESET_PATIENCE },
    );
    if (result < 0) {
      const reason = result === -Errno.ENOTTY ? 'it cannot be reset by itself' : errnoName(-result);
      throw new HostError('VFIO_DEVICE_RESET', -result, bdf, `no reset: ${reason}`);
    }
  }
}
