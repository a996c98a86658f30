// A loopback device on a host that behaves as Linux was measured to (kernel-host.ts): removing VFs blocks as long as
// anybody refers to one, and whoever waits for that cannot be killed. Behind a whole backend, in the test's process.

import {
  type DeviceDescription,
  type FunctionHandle,
  type HeldVf,
  type HostRequests,
  PF_INDEX,
  type PhysicalDevice,
} from '../../backend/device/physical-device.ts';
import { describeLoopback, type LoopbackHandle, type LoopbackOptions } from '../fakes/loopback.ts';
import { KernelHost } from './kernel-host.ts';

export class KernelDevice implements PhysicalDevice {
  readonly description: DeviceDescription;
  readonly pf: LoopbackHandle;
  readonly kernel: KernelHost;
  /** Who refers to a VF beside the backend; undefined: nobody. The kernel asks when a VF is opened again. */
  holderOf: (vfIndex: number) => string | undefined = () => undefined;
  #isStuck = false;

  constructor(options: LoopbackOptions) {
    this.description = describeLoopback(options);
    this.pf = { index: PF_INDEX, options };
    this.kernel = new KernelHost(options);
  }

  /** From now on nothing that is asked of the host comes back. */
  stick(): void {
    this.#isStuck = true;
  }

  goOn(): void {
    this.#isStuck = false;
    this.kernel.settle();
  }

  async expectMemory(): Promise<void> {}

  createVfs(count: number): Promise<readonly FunctionHandle[]> {
    return this.#ask('createVfs', [count]);
  }

  releaseVfs(): Promise<readonly HeldVf[]> {
    this.#look();
    return this.#ask('releaseVfs', []);
  }

  destroyVfs(): Promise<void> {
    this.#look();
    return this.#ask('destroyVfs', []);
  }

  async resetFunction(): Promise<void> {}

  async syncStorage(): Promise<void> {}

  async mapDma(): Promise<void> {}

  async unmapDma(): Promise<void> {}

  async unmapAllDma(): Promise<void> {}

  onReleaseRequested(): void {}

  async close(): Promise<void> {}

  #look(): void {
    for (let vfIndex = 0; vfIndex < this.kernel.count; vfIndex++) {
      const holder = this.holderOf(vfIndex);
      for (const former of this.kernel.holdersOf(vfIndex)) {
        if (former.startsWith('VMM')) {
          this.kernel.letGo(vfIndex, former);
        }
      }
      if (holder !== undefined) {
        this.kernel.hold(vfIndex, `VMM: ${holder}`);
      }
    }
  }

  #ask<N extends keyof HostRequests>(
    name: N,
    args: HostRequests[N]['args'],
  ): Promise<HostRequests[N]['reply']> {
    return new Promise((resolve, reject) => {
      const done = (error: Error | undefined, reply: HostRequests[N]['reply']): void =>
        error === undefined ? resolve(reply) : reject(error);
      this.kernel.request(name, args, done);
      setImmediate(() => {
        if (!this.#isStuck) {
          this.kernel.settle();
        }
      });
    });
  }
}
