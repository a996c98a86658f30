// A backend's status as a person reads it: one tree. Pure.
import type { DeviceStatus, FunctionStatus, VfStatus } from '../../protocol/hotplug/status.ts';
import { printable } from '../../protocol/printable.ts';

/** The tree, with a line end after each line. */
export function statusText(status: DeviceStatus): string {
  const lines = [
    `${status.device}  SR-IOV ${status.phase}  ${status.vfEnable ? status.numVfs : 0} of ${status.totalVfs} VFs`,
    `├─ PF      ${status.pf.attached ? 'attached' : 'no VM'}; ${counts(status.pf)}`,
    `├─ hot-plug by ${status.hotplug ?? 'nobody'}, generation ${status.generation}`,
  ];
  if (status.failure !== null) {
    lines.push(`├─ last enable failed: ${status.failure}`);
  }
  if (status.trace?.on === true) {
    lines.push(`├─ recording: ${counted(status.trace.records, 'event')}`);
  } else if (status.trace !== undefined && status.trace.failure !== null) {
    lines.push(`├─ the recording ended: ${status.trace.failure}`);
  }
  for (const text of status.pf.failedMaps) {
    lines.push(`├─ ${text}`);
  }
  const held = new Set(status.quarantine.map(({ vfIndex }) => vfIndex));
  for (const vf of status.vfs) {
    const isHeld = held.has(vf.index);
    if (vf.state === 'absent' && !vf.attached && !isHeld) {
      continue;
    }
    lines.push(`├─ VF ${String(vf.index).padEnd(4)} ${vfText(vf, isHeld)}`);
    for (const text of vf.failedMaps) {
      lines.push(`├─ VF ${vf.index}: ${text}`);
    }
  }
  const last = lines.length - 1;
  lines[last] = lines[last]!.replace('├', '└');
  return lines.map((line) => `${printable(line)}\n`).join('');
}

function vfText(vf: VfStatus, isHeld: boolean): string {
  const state = isHeld ? 'in quarantine' : vf.state;
  const holder = vf.holder === null ? '' : `, held by ${vf.holder}`;
  const generation = vf.generation === 0 ? '' : `, generation ${vf.generation}`;
  const memory = typeof vf.memory === 'string' ? `, memory ${vf.memory}` : '';
  return `${state}${generation}${holder}${memory}; ${counts(vf)}`;
}

function counts(of: FunctionStatus): string {
  const parts = [
    counted(of.messages, 'message'),
    counted(of.interrupts, 'interrupt'),
    counted(of.dmaWindows, 'DMA window'),
  ];
  return parts.join(', ');
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}
