// What a trace shows of the guest's SR-IOV state at each event: the registers as it wrote them, the VFs' phase, and whether
// an access is the guest's own or its VMM's. The rules look at it; they keep no copies.

import { fieldOf } from '../../../backend/pci/registers.ts';
import { SRIOV } from '../../../backend/pci/spec/sriov.ts';
import { RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import type { NamedEvent } from '../reading/naming.ts';
import type { GuestClock } from './guest-time.ts';
import type { Waited } from './waits.ts';

/** One event as the rules see it; `before` of a register is in `named.decoded`. */
export interface Observation {
  readonly named: NamedEvent;
  readonly time: number;
  /** A VF's index; undefined for the PF and the device. */
  readonly vf: number | undefined;
  /** The access comes from the guest, not from the VMM or its glue. */
  readonly isGuests: boolean;
}

/** A write that software waits after; nanoseconds since the trace began. */
export interface Mark {
  readonly at: number;
  /** When the guest had an answer to a read of the same function before; undefined: never. */
  readonly heardAt: number | undefined;
}

/** Names by which the model follows registers. */
const CONTROL = 'SR-IOV Control';
const NUM_VFS = 'SR-IOV NumVFs';
const NOBODY = 0xffff;

export class GuestModel {
  readonly #clock: GuestClock;
  /** Undefined while nothing is known, as in a recording whose beginning is missing. */
  vfEnable: boolean | undefined;
  vfMemorySpaceEnable: boolean | undefined;
  numVfs: number | undefined;
  /** When VF Enable was set, or cleared, by the guest last. */
  enabled: Mark | undefined;
  disabled: Mark | undefined;
  phase = 'disabled';
  /** When each function's FLR began, by name. */
  readonly resets = new Map<string, Mark>();
  /** When each function's config space was read last, by name: the guest got an answer, and was up to date. */
  readonly #readAt = new Map<string, number>();
  /** A glue only places slots, while the guest stands still. */
  #hasGlue = false;
  /** VFs that a VMM is attaching: it reads their config space itself meanwhile. */
  readonly #attaching = new Set<number>();

  constructor(clock: GuestClock, isFromStart: boolean) {
    this.#clock = clock;
    if (isFromStart) {
      this.vfEnable = false;
      this.vfMemorySpaceEnable = false;
      this.numVfs = 0;
    }
  }

  /** How long the guest waited after a write: nanoseconds of guest time. */
  since({ at, heardAt }: Mark, time: number): Waited {
    return {
      waited: this.#clock.between(at, time),
      unheard: heardAt === undefined ? Number.POSITIVE_INFINITY : this.#clock.between(heardAt, at),
    };
  }

  /** `isVmms`: it is known to be the VMM's doing. */
  observe(named: NamedEvent, isVmms = false): Observation {
    const { event } = named;
    const match = /^vf(\d+)$/.exec(event.function);
    const vf = match === null ? undefined : Number(match[1]);
    const isGuests =
      event.kind === 'access' &&
      !isVmms &&
      !this.#clock.isStoppedAt(event.time) &&
      !(vf !== undefined && this.#attaching.has(vf));
    return { named, time: event.time, vf, isGuests };
  }

  /** Takes the event in; to be called when the rules have seen it. */
  follow({ named, time }: Observation): void {
    const { event, decoded } = named;
    if (event.kind === 'access') {
      if (event.function === 'pf' && decoded !== undefined) {
        this.#register(named.what, decoded.after ?? decoded.value, event.isWrite, time);
      }
      if (!event.isWrite && event.region === RegionIndex.config) {
        this.#readAt.set(event.function, time);
      }
    } else if (event.kind === 'reset') {
      // A DEVICE_RESET is the VMM's: it waits for the answer, and the guest sees nothing of it.
      if (event.detail.kind === 'function') {
        this.resets.set(event.function, this.#markAt(time, event.function));
      } else {
        this.resets.delete(event.function);
      }
      if (event.function === 'pf') {
        this.#cleared();
      }
    } else if (event.kind === 'step') {
      this.phase = String(event.detail.after);
    } else if (event.kind === 'session' || event.kind === 'glue') {
      this.#hasGlue ||= event.kind === 'glue' || event.detail.role === 'glue';
    } else if (event.kind === 'hotplug' && event.detail.message === 'VfPlug' && !this.#hasGlue) {
      const index = Number(event.detail.vfIndex);
      if (event.detail.direction === 'sent') {
        this.#attaching.add(index);
      } else {
        this.#attaching.delete(index);
      }
    } else if (event.kind === 'gap') {
      this.#lost();
    }
  }

  #register(name: string, value: number | undefined, isWrite: boolean, time: number): void {
    // All-ones is no value: the PF was in a reset, and nobody answered.
    if (value === undefined || (!isWrite && value === NOBODY)) {
      return;
    }
    if (name === NUM_VFS && (!isWrite || this.vfEnable !== true)) {
      this.numVfs = value;
    }
    if (name !== CONTROL) {
      return;
    }
    const enable = fieldOf(SRIOV.control, 'vfEnable', value) === 1;
    if (isWrite && enable && this.vfEnable !== true) {
      this.enabled = this.#markAt(time, 'pf');
      this.disabled = undefined;
    } else if (isWrite && !enable && this.vfEnable === true) {
      this.disabled = this.#markAt(time, 'pf');
      this.enabled = undefined;
    }
    this.vfEnable = enable;
    this.vfMemorySpaceEnable = fieldOf(SRIOV.control, 'vfMemorySpaceEnable', value) === 1;
  }

  #markAt(at: number, name: string): Mark {
    return { at, heardAt: this.#readAt.get(name) };
  }

  /** Events are missing: whatever was known may be otherwise by now. */
  #lost(): void {
    this.vfEnable = undefined;
    this.vfMemorySpaceEnable = undefined;
    this.numVfs = undefined;
    this.enabled = undefined;
    this.disabled = undefined;
    this.resets.clear();
    this.#readAt.clear();
    this.#attaching.clear();
  }

  #cleared(): void {
    this.vfEnable = false;
    this.vfMemorySpaceEnable = false;
    this.numVfs = 0;
    this.enabled = undefined;
    this.disabled = undefined;
  }
}
