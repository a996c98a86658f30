// A backend's status as a person reads it: one tree. Pure.
import type { DeviceStatus, FunctionStatus, VfStatus } from '../../protocol/hotplug/status.ts';
import { printable } from '../../protocol/printable.ts';
import { findingText } from '../trace/explain/rules.ts';
import type { DriverLook } from './driver-view.ts';

/** QEMU 11.1: a device whose memory the command has printed is never let go of. */
const KEPT_BY_QEMU =
  'a QEMU that still runs keeps VFs whose memory "info mtree -f" has printed, until it ends: leave out the -f';

/** The tree, with a line end after each line; `driver` where a recording is on. */
export function statusText(status: DeviceStatus, driver: DriverLook = {}): string {
  const lines = [
    `${status.device}  SR-IOV ${status.phase}  ${status.vfEnable ? status.numVfs : 0} of ${status.totalVfs} VFs`,
    `├─ PF      ${status.pf.attached ? 'attached' : 'no VM'}; ${counts(status.pf)}`,
    `├─ hot-plug by ${status.hotplug ?? 'nobody'}, generation ${status.generation}`,
  ];
  if (status.failure !== null) {
    lines.push(`├─ last enable failed: ${status.failure}`);
  }
  if (status.trace?.on === true) {
    const { records, path } = status.trace;
    const where = typeof path === 'string' ? `, into ${path}` : '';
    lines.push(`├─ recording: ${counted(records, 'event')}${where}`);
    lines.push(`├─ ${driverText(driver)}`);
  } else if (status.trace !== undefined && status.trace.failure !== null) {
    lines.push(`├─ the recording ended: ${status.trace.failure}`);
  }
  for (const { id, rule, fired } of status.faults ?? []) {
    lines.push(`├─ fault ${id}: ${rule}, fired ${counted(fired, 'time')}`);
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
  if (status.quarantine.some(({ holder }) => holder.includes('qemu'))) {
    lines.push(`├─ ${KEPT_BY_QEMU}`);
  }
  const last = lines.length - 1;
  lines[last] = lines[last]!.replace('├', '└');
  return lines.map((line) => `${printable(line)}\n`).join('');
}

function driverText({ finding, problem }: DriverLook): string {
  if (problem !== undefined) {
    return `what the driver did is not known: ${problem}`;
  }
  return finding === undefined
    ? 'the driver did nothing that the standard forbids'
    : `last finding: ${findingText(finding).trimStart()}`;
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
