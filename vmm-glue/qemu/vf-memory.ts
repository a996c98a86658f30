// Whether a QEMU has the memory of VFs laid over their slots: where it can, unless its user wants otherwise. Pure.
import type { QemuRequest } from './qemu-arguments.ts';
import { MOST_MAPPED_BACKENDS, type VfMemory } from './topology.ts';

/** What decides about one backend's VFs. */
export interface VfMemoryRequest {
  /** As the user asked for, if at all. */
  readonly asked: VfMemory | undefined;
  /** Counts the backends of this QEMU from 0. */
  readonly index: number;
  /** False: QEMU was built without the device pxb-pcie. */
  readonly knowsExpanderBus: boolean;
  /** What the user's own arguments say of the machine, where they are known. */
  readonly machine?: Pick<QemuRequest, 'machine' | 'hasExpanderBus'>;
}

export interface VfMemoryChoice {
  readonly vfMemory: VfMemory;
  /** Why VFs are trapped that nobody wants to be. */
  readonly obstacle?: string;
}

/** VFs that cannot be mapped are trapped, which is slower, and right. */
export function chooseVfMemory(request: VfMemoryRequest): VfMemoryChoice {
  if (request.asked === 'trapped') {
    return { vfMemory: 'trapped' };
  }
  const obstacle = obstacleTo(request);
  return obstacle === undefined ? { vfMemory: 'mapped' } : { vfMemory: 'trapped', obstacle };
}

function obstacleTo(request: VfMemoryRequest): string | undefined {
  const { asked, index, knowsExpanderBus, machine } = request;
  if (!knowsExpanderBus) {
    return 'this QEMU was built without the device pxb-pcie';
  }
  if (index >= MOST_MAPPED_BACKENDS) {
    return `QEMU has bus numbers for the carriers of ${MOST_MAPPED_BACKENDS} backends only`;
  }
  if (machine?.machine === 'virt') {
    return 'the guest of a virt machine does not find the ports that this takes';
  }
  // Who asks for it has seen to it that the numbers are free.
  return machine?.hasExpanderBus === true && asked === undefined
    ? 'this QEMU has an expander bus of its own, which may have the same bus numbers (--vf-memory=mapped if it has not)'
    : undefined;
}
