// A host that behaves as Linux was measured to: VFs live as long as somebody has one open or mapped, and whoever
// removes them meanwhile is stuck, beyond the reach of any signal, until the last reference is gone.

import {
  HostError,
  type HostLink,
  type HostRequests,
} from '../../backend/device/physical-device.ts';

import type { LoopbackHandle, LoopbackOptions } from '../fakes/loopback.ts';

type Name = keyof HostRequests;
type Done = (error: HostError | undefined, reply: never) => void;

const BACKEND = 'backend';
const OPTIONS = { totalVfs: 64, vfBarSize: 4096, enableMilliseconds: 0 } as const;
const EIO = 5;

export class KernelHost implements HostLink {
  /** Names of the requests, in the order in which they came. */
  readonly asked: Name[] = [];
  /** VFs that exist. */
  count = 0;
  /** Whether a writer of sriov_numvfs has ever been stuck. */
  everStuck = false;
  readonly #references = new Map<number, Set<string>>();
  readonly #queue: (() => void)[] = [];
  readonly #failures = new Map<Name, string>();
  readonly #options: LoopbackOptions;
  #stuckWriter: (() => void) | undefined;

  constructor(options: LoopbackOptions = OPTIONS) {
    this.#options = options;
  }

  /** The next request of this name fails. */
  failNext(name: Name, text = 'no such luck'): void {
    this.#failures.set(name, text);
  }

  /** Somebody opens or maps a VF. */
  hold(vfIndex: number, holder: string): void {
    if (vfIndex >= this.count) {
      throw new Error(`VF ${vfIndex} does not exist: nobody can open it`);
    }
    this.#holdersOf(vfIndex).add(holder);
  }

  letGo(vfIndex: number, holder: string): void {
    this.#holdersOf(vfIndex).delete(holder);
    if (this.#isFree()) {
      this.#stuckWriter?.();
    }
  }

  holdersOf(vfIndex: number): string[] {
    return [...this.#holdersOf(vfIndex)];
  }

  request<N extends Name>(name: N, args: HostRequests[N]['args'], done: unknown): void {
    this.asked.push(name);
    this.#queue.push(() => this.#carryOut(name, args, done as Done));
  }

  /** Answers everything that was asked, and what was asked because of the answers. */
  settle(): void {
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      next();
    }
  }

  #carryOut(name: Name, args: HostRequests[Name]['args'], done: Done): void {
    const failure = this.#failures.get(name);
    if (failure !== undefined) {
      this.#failures.delete(name);
      done(new HostError(name, EIO, 'the host', failure), undefined as never);
    } else if (name === 'createVfs') {
      done(undefined, this.#create((args as HostRequests['createVfs']['args'])[0]) as never);
    } else if (name === 'releaseVfs') {
      done(undefined, this.#release() as never);
    } else if (name === 'destroyVfs') {
      this.#destroy(() => done(undefined, undefined as never));
    } else {
      done(undefined, undefined as never);
    }
  }

  #create(count: number): LoopbackHandle[] {
    if (this.count !== 0) {
      throw new Error(`${this.count} VFs exist: Linux would say EBUSY`);
    }
    this.count = count;
    return Array.from({ length: count }, (_, index) => {
      this.hold(index, BACKEND);
      return { index, options: this.#options };
    });
  }

  #release(): { vfIndex: number; holder: string }[] {
    for (const holders of this.#references.values()) {
      holders.delete(BACKEND);
    }
    return [...this.#references].flatMap(([vfIndex, holders]) =>
      holders.size > 0 ? [{ vfIndex, holder: [...holders].join(', ') }] : [],
    );
  }

  #destroy(done: () => void): void {
    const finish = (): void => {
      this.#stuckWriter = undefined;
      this.count = 0;
      done();
    };
    if (this.#isFree()) {
      finish();
      return;
    }
    this.everStuck = true;
    this.#stuckWriter = finish;
  }

  #isFree(): boolean {
    return [...this.#references.values()].every((holders) => holders.size === 0);
  }

  #holdersOf(vfIndex: number): Set<string> {
    const holders = this.#references.get(vfIndex) ?? new Set<string>();
    this.#references.set(vfIndex, holders);
    return holders;
  }
}
