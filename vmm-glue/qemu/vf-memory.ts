// Whether a QEMU has the memory of VFs laid over their slots: where its user asks for that, and QEMU can. Pure.
import { MOST_MAPPED_BACKENDS, type VfMemory } from './topology.ts';

/** What decides about one backend's VFs. */
export interface VfMemoryRequest {
  readonly asked: VfMemory;
  /** Counts the backends of this QEMU from 0. */
  readonly index: number;
  /** False: QEMU was built without the device pxb-pcie. */
  readonly knowsExpanderBus: boolean;
}

export interface VfMemoryChoice {
  readonly vfMemory: VfMemory;
  /** Why VFs are trapped that were to be mapped. */
  readonly obstacle?: string;
}

/** VFs that cannot be mapped are trapped, which is slower, and right. */
export function chooseVfMemory(request: VfMemoryRequest): VfMemoryChoice {
  const obstacle = request.asked === 'mapped' ? obstacleTo(request) : undefined;
  return obstacle === undefined ? { vfMemory: request.asked } : { vfMemory: 'trapped', obstacle };
}

function obstacleTo({ index, knowsExpanderBus }: VfMemoryRequest): string | undefined {
  if (!knowsExpanderBus) {
    return 'this QEMU was built without the device pxb-pcie';
  }
  return index >= MOST_MAPPED_BACKENDS
    ? `QEMU has bus numbers for the carriers of ${MOST_MAPPED_BACKENDS} backends only`
    : undefined;
}
