// The device's state as the status command shows it: a plain object, made anew for each question.

import type {
  DeviceStatus,
  FaultStatus,
  FunctionStatus,
  TraceState,
} from '../../protocol/hotplug/status.ts';
import type { DeviceDescription } from '../device/physical-device.ts';
import type { PhysicalFunction } from '../device/physical-function.ts';
import type { ServedFunction } from '../device/served-function.ts';
import type { VirtualFunction } from '../device/virtual-function.ts';
import type { State } from '../sriov/states-and-events.ts';
import type { PeerSession } from './endpoint.ts';

export interface StatusOptions {
  readonly description: DeviceDescription;
  readonly state: State;
  readonly pf: PhysicalFunction;
  readonly vfs: readonly VirtualFunction[];
  readonly hotplugRole: 'vmm' | 'glue' | undefined;
  /** What the glue has said of a VF that it maps nothing of. */
  whyTrapped(vfIndex: number): string | undefined;
  /** Whether something of VFs may be mapped. */
  readonly hasCarriers: boolean;
  readonly sessions: readonly PeerSession[];
  readonly trace?: TraceState | undefined;
  readonly faults?: readonly FaultStatus[] | undefined;
}

export function deviceStatus(options: StatusOptions): DeviceStatus {
  const { state, pf, vfs, sessions } = options;
  const messages = messagesByFunction(sessions);
  const quarantine = state.phase === 'quarantined' ? state.held : [];
  const holders = new Map(quarantine.map(({ vfIndex, holder }) => [vfIndex, holder]));
  return {
    version: 1,
    device: options.description.name,
    phase: state.phase,
    failure: 'failure' in state ? (state.failure ?? null) : null,
    numVfs: pf.sriov.numVfs,
    totalVfs: pf.sriov.totalVfs,
    vfEnable: pf.sriov.vfEnable,
    generation: state.lastGeneration,
    hotplug: options.hotplugRole ?? null,
    pf: functionStatus(pf, messages),
    clients: sessions.map((session) => ({
      function: session.endpoint.function.name,
      role: session.agreed === undefined ? 'new' : session.role,
      messages: session.messages,
    })),
    vfs: vfs.map((vf) => ({
      index: vf.index,
      generation: vf.generation,
      state: vf.state,
      holder: holders.get(vf.index) ?? userOf(vf, options),
      memory: memoryOf(vf, options),
      ...functionStatus(vf, messages),
    })),
    quarantine: quarantine.map(({ vfIndex, holder }) => ({ vfIndex, holder })),
    ...(options.trace === undefined ? {} : { trace: options.trace }),
    ...(options.faults === undefined ? {} : { faults: options.faults }),
  };
}

/** Those of the clients that use the function, not of those that look at it. */
function messagesByFunction(sessions: readonly PeerSession[]): Map<ServedFunction, number> {
  const sums = new Map<ServedFunction, number>();
  for (const { endpoint, role, messages } of sessions) {
    if (role === 'device') {
      sums.set(endpoint.function, (sums.get(endpoint.function) ?? 0) + messages);
    }
  }
  return sums;
}

function functionStatus(
  served: ServedFunction,
  messages: ReadonlyMap<ServedFunction, number>,
): FunctionStatus {
  return {
    attached: served.attached,
    messages: messages.get(served) ?? 0,
    interrupts: served.interrupts.raised,
    dmaWindows: served.memory.windows.size,
    failedMaps: served.memory.failedMaps.sentences,
  };
}

/** How the VM reaches a VF's BARs, and why not otherwise. */
function memoryOf(vf: VirtualFunction, options: StatusOptions): string | null {
  if (vf.state !== 'up') {
    return null;
  }
  if (vf.hasCarrier) {
    return vf.isSlotSilent
      ? "neither mapped nor trapped: the guest has cleared its Command's Memory Space Enable, or put it to D3hot"
      : 'mapped, by a carrier';
  }
  return options.hotplugRole === 'vmm' || vf.canRemap
    ? 'mapped, by the VMM'
    : `trapped: ${whyTrapped(vf, options)}`;
}

function whyTrapped(vf: VirtualFunction, options: StatusOptions): string {
  if (!options.hasCarriers) {
    return 'nothing of it may be mapped';
  }
  if (!options.pf.sriov.vfMemorySpaceEnable) {
    return 'VF Memory Space Enable is 0';
  }
  if (options.hotplugRole === undefined) {
    return 'no glue is attached that would lay a carrier over it';
  }
  return options.whyTrapped(vf.index) ?? 'no carrier is laid over it yet';
}

/** Who has a VF that nobody keeps against our will. */
function userOf(vf: VirtualFunction, { hotplugRole }: StatusOptions): string | null {
  if (vf.state !== 'up') {
    return null;
  }
  return hotplugRole === 'vmm' ? 'vmm' : 'guest';
}
