// Whether a QEMU has the memory of VFs laid over their slots: where it can, unless its user wants otherwise. Pure.
import type { QemuRequest } from './qemu-arguments.ts';
import {
  type DevicePlan,
  hasRoomForCarriers,
  MOST_MAPPED_BACKENDS,
  type VfMemory,
} from './topology.ts';

/** What decides about one backend's VFs. */
export interface VfMemoryRequest
  extends Pick<DevicePlan, 'index' | 'topology' | 'totalVfs' | 'mappedVfs'> {
  /** As the user asked for, if at all. */
  readonly asked: VfMemory | undefined;
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
  const { asked, index, knowsExpanderBus, machine: user } = request;
  const { machine = 'q35' } = user ?? {};
  if (!hasRoomForCarriers({ ...request, machine })) {
    return 'PF and VFs leave no device number of pcie.0 for the ports that this takes';
  }
  if (machine === 'virt') {
    // No expander bus: see topology.ts.
    return undefined;
  }
  if (!knowsExpanderBus) {
    return 'this QEMU was built without the device pxb-pcie';
  }
  if (index >= MOST_MAPPED_BACKENDS) {
    return `QEMU has bus numbers for the carriers of ${MOST_MAPPED_BACKENDS} backends only`;
  }
  // Who asks for it has seen to it that the numbers are free.
  return user?.hasExpanderBus === true && asked === undefined
    ? 'this QEMU has an expander bus of its own, which may have the same bus numbers (--vf-memory=mapped if it has not)'
    : undefined;
}
