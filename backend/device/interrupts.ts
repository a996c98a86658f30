// The eventfds that a session bound to a function's vectors. They belong to the session: resets and the coming
// and going of VFs leave them alone, and `replay` hands them to a function that was opened anew.

import { WireError } from '../../protocol/errno.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { signalPeerEventFd } from '../../protocol/unix/peer-eventfd.ts';
import { IrqInfoFlag, IrqSetFlag } from '../../protocol/vfio-user/messages.ts';
import {
  type DeviceFunction,
  HostError,
  type IrqRequest,
  type IrqShape,
} from './physical-device.ts';

interface Vector {
  fd: number;
  masked: boolean;
  /** Raised while masked. */
  pending: boolean;
  /** The device holds its pin down: level-triggered, and so it is the device's to end, not the session's. */
  asserted: boolean;
}

interface Index {
  readonly shape: IrqShape;
  readonly vectors: Vector[];
  /** The client has enabled the index, with however many eventfds. */
  enabled: boolean;
}

const NONE = -1;

export class Interrupts {
  readonly #indexes: readonly Index[];
  readonly #withholds: (index: number, vector: number) => boolean;
  /** Interrupts that this process raised itself. */
  raised = 0;

  /** `withholds`: the hardware is not to signal this vector, though the client has bound it. */
  constructor(
    shapes: readonly IrqShape[],
    withholds: (index: number, vector: number) => boolean = () => false,
  ) {
    this.#withholds = withholds;
    this.#indexes = shapes.map((shape) => ({
      shape,
      enabled: false,
      vectors: Array.from({ length: shape.count }, () => ({
        fd: NONE,
        masked: false,
        pending: false,
        asserted: false,
      })),
    }));
  }

  /**
   * Carries out SET_IRQS and takes over the eventfds in it (also when it throws). `target` is the open function,
   * if there is one. EINVAL: no such index or vectors, or a form that makes no sense.
   */
  apply(request: IrqRequest, target: DeviceFunction | undefined): void {
    const untaken = new Set(request.eventFds ?? []);
    try {
      const index = this.#check(request);
      if (request.flags & IrqSetFlag.actionTrigger) {
        this.#trigger(index, request, untaken, target);
      } else {
        this.#mask(index, request, target);
      }
    } finally {
      for (const fd of untaken) {
        if (fd !== NONE) {
          closeFd(fd);
        }
      }
    }
  }

  /** Whether an eventfd is bound to a vector. */
  isBound(index: number, vector: number): boolean {
    return (this.#indexes[index]?.vectors[vector]?.fd ?? NONE) !== NONE;
  }

  /** Signals a vector; false where nothing is bound to it or it is masked (it is then raised on unmasking). */
  raise(index: number, vector: number): boolean {
    const bound = this.#indexes[index]?.vectors[vector];
    if (bound === undefined || bound.fd === NONE) {
      return false;
    }
    if (bound.masked) {
      bound.pending = true;
      return false;
    }
    this.raised++;
    return signalPeerEventFd(bound.fd);
  }

  /**
   * Drives a level-triggered vector. It is signalled and masked by that (IRQ_INFO says AUTOMASKED), and again whenever the
   * client unmasks it while it is still asserted.
   */
  drive(index: number, vector: number, asserted: boolean): void {
    const driven = this.#indexes[index]?.vectors[vector];
    if (driven !== undefined) {
      driven.asserted = asserted;
      this.#signalLevel(driven);
    }
  }

  /** Gives everything bound to a function that was opened after the client bound it. */
  replay(target: DeviceFunction): void {
    for (const { shape, vectors, enabled } of this.#indexes) {
      if (!enabled || vectors.length === 0) {
        continue;
      }
      const last = vectors.findLastIndex(({ fd }) => fd !== NONE);
      const count = Math.max(1, last + 1);
      target.setIrqs({
        index: shape.index,
        start: 0,
        count,
        flags: IrqSetFlag.dataEventFd | IrqSetFlag.actionTrigger,
        eventFds: this.#forHardware(
          shape.index,
          0,
          vectors.slice(0, count).map(({ fd }) => fd),
        ),
      });
    }
  }

  /** Closes every eventfd: the session is over. `failed` hears of what the hardware refused; nothing stays bound. */
  clear(target: DeviceFunction | undefined, failed: (error: HostError) => void): void {
    const flags = IrqSetFlag.dataNone | IrqSetFlag.actionTrigger;
    for (const index of this.#indexes) {
      try {
        if (index.enabled) {
          target?.setIrqs({ index: index.shape.index, start: 0, count: 0, flags });
        }
      } catch (error) {
        if (!(error instanceof HostError)) {
          throw error;
        }
        failed(error);
      } finally {
        this.#disable(index);
      }
    }
  }

  #check(request: IrqRequest): Index {
    const index = this.#indexes[request.index];
    const about = {
      call: 'DEVICE_SET_IRQS',
      path: `index ${request.index} start ${request.start} count ${request.count}`,
    };
    if (index === undefined) {
      throw new WireError('EINVAL', 'no such index', about);
    }
    if (request.start + request.count > index.shape.count) {
      throw new WireError('EINVAL', `the index has ${index.shape.count} vectors`, about);
    }
    const { flags } = request;
    const data = flags & IrqSetFlag.dataGroup;
    const action = flags & IrqSetFlag.actionGroup;
    if (!isOneBit(data) || !isOneBit(action)) {
      throw new WireError('EINVAL', `flags 0x${flags.toString(16)} name no single form`, about);
    }
    if (!(action & IrqSetFlag.actionTrigger) && !(index.shape.flags & IrqInfoFlag.maskable)) {
      throw new WireError('EINVAL', 'its IRQ_INFO does not say that it can be masked', about);
    }
    const disables = data === IrqSetFlag.dataNone && action === IrqSetFlag.actionTrigger;
    if (request.count === 0 && !(disables && request.start === 0)) {
      throw new WireError('EINVAL', 'nothing to do', about);
    }
    if (request.bools !== undefined && request.bools.length < request.count) {
      throw new WireError('EINVAL', `${request.bools.length} bytes of data`, about);
    }
    const fds = request.eventFds?.length ?? 0;
    if (fds !== 0 && (fds !== request.count || data !== IrqSetFlag.dataEventFd)) {
      throw new WireError('EINVAL', `came with ${fds} eventfds`, about);
    }
    return index;
  }

  #trigger(
    index: Index,
    request: IrqRequest,
    untaken: Set<number>,
    target: DeviceFunction | undefined,
  ): void {
    if (request.flags & IrqSetFlag.dataEventFd) {
      const eventFds =
        request.eventFds !== undefined && request.eventFds.length > 0
          ? request.eventFds
          : new Array<number>(request.count).fill(NONE);
      // The hardware first: where it refuses, the old bindings stay and the new fds are closed.
      target?.setIrqs({
        ...request,
        eventFds: this.#forHardware(request.index, request.start, eventFds),
      });
      index.enabled = true;
      eventFds.forEach((fd, i) => {
        const vector = index.vectors[request.start + i]!;
        const before = vector.fd;
        untaken.delete(fd);
        vector.fd = fd;
        vector.pending = false;
        if (before !== NONE && before !== fd) {
          closeFd(before);
        }
        this.#signalLevel(vector);
      });
      return;
    }
    if (request.count === 0) {
      target?.setIrqs(request);
      this.#disable(index);
      return;
    }
    for (let i = 0; i < request.count; i++) {
      if (request.bools?.[i] ?? true) {
        this.raise(request.index, request.start + i);
      }
    }
  }

  #mask(index: Index, request: IrqRequest, target: DeviceFunction | undefined): void {
    if (request.flags & IrqSetFlag.dataEventFd) {
      // Only hardware can hear the eventfd; it keeps a reference of its own. QEMU unmasks INTx like this under KVM.
      if (target === undefined) {
        throw new WireError('EINVAL', 'masking by eventfd without a device', {
          call: 'DEVICE_SET_IRQS',
        });
      }
      target.setIrqs(request);
      return;
    }
    target?.setIrqs(request);
    const masks = (request.flags & IrqSetFlag.actionMask) !== 0;
    for (let i = 0; i < request.count; i++) {
      if (!(request.bools?.[i] ?? true)) {
        continue;
      }
      const vector = index.vectors[request.start + i]!;
      vector.masked = masks;
      if (!masks && vector.pending) {
        vector.pending = false;
        this.raise(request.index, request.start + i);
      }
      this.#signalLevel(vector);
    }
  }

  #signalLevel(vector: Vector): void {
    if (vector.asserted && !vector.masked && vector.fd !== NONE) {
      vector.masked = true;
      this.raised++;
      signalPeerEventFd(vector.fd);
    }
  }

  #forHardware(index: number, start: number, eventFds: readonly number[]): readonly number[] {
    return eventFds.map((fd, i) => (fd !== NONE && this.#withholds(index, start + i) ? NONE : fd));
  }

  #disable(index: Index): void {
    index.enabled = false;
    for (const vector of index.vectors) {
      if (vector.fd !== NONE) {
        closeFd(vector.fd);
      }
      vector.fd = NONE;
      vector.masked = false;
      vector.pending = false;
    }
  }
}

function isOneBit(value: number): boolean {
  return value !== 0 && (value & (value - 1)) === 0;
}
