// Which guest memory each function sees, and through which container. In shared mode one container serves the PF and
// its VFs: the PF's session maps, a VF's maps only confirm it. In per-function mode each function has its own.
// The owner of a window keeps its fd open until unmapDma has resolved. Called by VfHost and VfSet.

import type { Clock } from '../../../../protocol/clock.ts';
import { Errno } from '../../../../protocol/errno.ts';
import { askUntil } from '../../../../protocol/retry.ts';
import {
  type DmaWindow,
  type ExpectedMemory,
  HostError,
  PF_INDEX,
} from '../../../device/physical-device.ts';
import type { HostContext } from '../host-context.ts';
import type { VfioContainer } from '../vfio/container.ts';
import type { KernelCalls } from '../vfio/kernel-calls.ts';

export type ContainerMode = 'shared' | 'per-function';

interface KnownWindow extends DmaWindow {
  /** Of the file behind `fd`. */
  readonly identity: string;
  /** Why the kernel refused it, if it did. */
  failure?: HostError;
}

/** Milliseconds that a VF's map waits for the PF's: a VMM tells its devices about new memory one by one. */
const CONFIRM_PATIENCE = { patienceMilliseconds: 500, stepMilliseconds: 10 } as const;

export class DmaDirector {
  readonly #calls: KernelCalls;
  readonly #clock: Clock;
  readonly #mode: ContainerMode;
  readonly #openContainer: () => Promise<VfioContainer>;
  readonly #windows = new Map<number, Map<bigint, KnownWindow>>();
  readonly #containers = new Map<number, VfioContainer>();

  constructor(
    { calls, clock }: Pick<HostContext, 'calls' | 'clock'>,
    mode: ContainerMode,
    openContainer: () => Promise<VfioContainer>,
  ) {
    this.#calls = calls;
    this.#clock = clock;
    this.#mode = mode;
    this.#openContainer = openContainer;
  }

  /** What functions that are not open yet will see, besides what was told before. */
  expect(memory: readonly ExpectedMemory[]): void {
    // Mostly all windows of all functions are of one file.
    const identities = new Map<number, string>();
    for (const { index, windows } of memory) {
      const known = this.#windowsOf(index);
      for (const window of windows) {
        const identity = identities.get(window.fd) ?? this.#calls.fileIdentity(window.fd);
        identities.set(window.fd, identity);
        known.set(window.address, { ...window, identity });
      }
    }
  }

  /** Forgets what VFs were to see that were not opened. */
  forgetVfs(): void {
    for (const index of this.#windows.keys()) {
      if (index !== PF_INDEX && !this.#containers.has(index)) {
        this.#windows.delete(index);
      }
    }
  }

  /** The container that a function is opened in. @throws HostError */
  async containerFor(index: number): Promise<VfioContainer> {
    const pfContainer = this.#containers.get(PF_INDEX);
    const isShared = this.#mode === 'shared' && pfContainer !== undefined && this.#agrees(index);
    const container = isShared ? pfContainer : await this.#openContainer();
    this.#containers.set(index, container);
    return container;
  }

  /** Maps what is known of a function that was opened just now, where its container is its own. @throws HostError */
  async functionOpened(index: number): Promise<void> {
    const container = this.#containers.get(index);
    if (container === undefined || this.#sharesWithPf(index)) {
      return;
    }
    for (const window of this.#windowsOf(index).values()) {
      await container.map(window);
    }
  }

  /** Forgets a closed function's container, and its windows: for its next life they are told anew. */
  async functionClosed(index: number): Promise<void> {
    const container = this.#containers.get(index);
    const isShared = this.#sharesWithPf(index);
    this.#containers.delete(index);
    this.#windows.delete(index);
    if (container !== undefined && !isShared) {
      await container.close();
    }
  }

  /** @throws HostError; a failed window is remembered until it is unmapped. */
  async map(index: number, window: DmaWindow): Promise<void> {
    const windows = this.#windowsOf(index);
    const identity = this.#calls.fileIdentity(window.fd);
    const known: KnownWindow = { ...window, identity };
    const previous = windows.get(window.address);
    if (previous !== undefined && previous.failure === undefined && isSame(previous, known)) {
      return;
    }
    windows.set(window.address, known);
    try {
      await this.#carryOut(index, known);
    } catch (error) {
      if (error instanceof HostError) {
        known.failure = error;
      }
      throw error;
    }
  }

  /** @throws HostError */
  async unmap(index: number, window: DmaWindow): Promise<void> {
    const windows = this.#windowsOf(index);
    const known = windows.get(window.address);
    if (known === undefined || known.size !== window.size) {
      throw new HostError(
        'VFIO_IOMMU_UNMAP_DMA',
        Errno.ENOENT,
        `function ${index}`,
        `no map of ${window.size} bytes at 0x${window.address.toString(16)}`,
      );
    }
    windows.delete(window.address);
    const container = this.#containers.get(index);
    if (container === undefined || this.#sharesWithPf(index)) {
      return;
    }
    if (known.failure === undefined) {
      await container.unmap(window);
    }
  }

  /** @throws HostError */
  async unmapAll(index: number): Promise<void> {
    this.#windows.delete(index);
    const container = this.#containers.get(index);
    if (container !== undefined && !this.#sharesWithPf(index)) {
      await container.unmapAll();
    }
  }

  /** The first map that failed and is still wanted; VFs must not be enabled then. */
  failure(): HostError | undefined {
    for (const windows of this.#windows.values()) {
      for (const { failure } of windows.values()) {
        if (failure !== undefined) {
          return failure;
        }
      }
    }
    return undefined;
  }

  async #carryOut(index: number, known: KnownWindow): Promise<void> {
    const container = this.#containers.get(index);
    // A function that is not open yet: functionOpened does it.
    if (container === undefined) {
      return;
    }
    if (!this.#sharesWithPf(index)) {
      await container.map(known);
      return;
    }
    const isConfirmed = (): boolean => this.#isConfirmed(known);
    const patience = { clock: this.#clock, ...CONFIRM_PATIENCE };
    if (await askUntil(isConfirmed, (confirmed) => confirmed, patience)) {
      return;
    }
    throw new HostError(
      'VFIO_IOMMU_MAP_DMA',
      Errno.EINVAL,
      `function ${index}`,
      `VF ${index} asks for memory at 0x${known.address.toString(16)} that the PF does not have: they share one IOMMU address space`,
      'start the backend with --container=per-function',
    );
  }

  #sharesWithPf(index: number): boolean {
    return index !== PF_INDEX && this.#containers.get(index) === this.#containers.get(PF_INDEX);
  }

  #isConfirmed(known: KnownWindow): boolean {
    const ofPf = this.#windowsOf(PF_INDEX).get(known.address);
    return ofPf !== undefined && isSame(ofPf, known);
  }

  // Whether a VF that is not open can live in the PF's address space.
  #agrees(index: number): boolean {
    return [...this.#windowsOf(index).values()].every((known) => this.#isConfirmed(known));
  }

  #windowsOf(index: number): Map<bigint, KnownWindow> {
    const windows = this.#windows.get(index) ?? new Map<bigint, KnownWindow>();
    this.#windows.set(index, windows);
    return windows;
  }
}

function isSame(a: KnownWindow, b: KnownWindow): boolean {
  return (
    a.size === b.size &&
    a.identity === b.identity &&
    a.fileOffset === b.fileOffset &&
    a.writable === b.writable
  );
}
