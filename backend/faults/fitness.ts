// Which rules make sense for a device. Pure.

import { COUNTS, type FaultLanguage } from '../device/faults.ts';
import type { DeviceDescription, FunctionShape } from '../device/physical-device.ts';
import { findExtendedCapability } from '../pci/capability-chain.ts';
import { ExtendedCapabilityId } from '../pci/spec/capability-ids.ts';
import { vectorsOf } from '../pci/vectors.ts';
import type { FaultRule } from './parse-rule.ts';
import { RuleError } from './parse-rule.ts';

/** The device that rules are to be armed for. */
export interface FaultyDevice {
  /** As in backend/devices/registry.ts. */
  readonly kind: string;
  readonly description: DeviceDescription;
  /** What can go wrong with this kind alone. */
  readonly faults?: FaultLanguage | undefined;
  /** The names of other kinds of device: their faults begin with them. */
  readonly otherKinds?: readonly string[];
}

/** The kind whose functions are the host's. */
const HARDWARE = 'vfio';

/** Its interrupts do not pass through this program, which can only keep them away as a whole. */
export function signalsByItself(kind: string): boolean {
  return kind === HARDWARE;
}

/** @throws RuleError where the rule is of another kind of device. */
export function insistOnKind(text: string, { kind, otherKinds = [] }: FaultyDevice): void {
  const [name = ''] = text.split(/[=@]/);
  const [of = ''] = name.split(':');
  if (of !== kind && of !== name && otherKinds.includes(of)) {
    refuse(`${name} goes with --device=${of}`, 'leave it out');
  }
}

/** @throws RuleError where the device cannot have this fault. */
export function insistOnFitness(rule: FaultRule, { kind, description }: FaultyDevice): void {
  const { spec } = rule;
  const isHardware = kind === HARDWARE;
  if (isHardware && spec.notOfHardware !== undefined) {
    const what = `${rule.name} cannot be had of a physical function: ${spec.notOfHardware}`;
    refuse(what, 'use a device in RAM');
  }
  const counts = COUNTS.filter((each) => rule.conditions[each] !== undefined);
  if (isHardware && rule.name === 'msix:lost' && counts.length > 0) {
    const what = 'the interrupts of a physical function cannot be counted: they do not pass here';
    const places = counts.map((each) => rule.places[each]!);
    refuse(what, 'leave after, every and times out', Math.min(...places));
  }
  const { function: index } = rule.conditions;
  const vfIndex = rule.subject ?? index ?? -1;
  if (vfIndex >= description.totalVfs) {
    const place = rule.subject === undefined ? rule.places.function : rule.places.subject;
    refuse(`there is no VF ${vfIndex}`, `name one of 0 to ${description.totalVfs - 1}`, place);
  }
  const shapes = [
    ...(index === undefined || index === -1 ? [description.pf] : []),
    ...(index === undefined || index >= 0 ? [description.vf] : []),
  ];
  if (rule.name.startsWith('msix:')) {
    insistOnVector(rule, shapes);
  }
  if (rule.name.startsWith('aer:') && !shapes.some(hasAer)) {
    refuse(`${rule.name} needs an AER capability, which the device does not have`, 'leave it out');
  }
}

/** Some function of those that are meant has it. */
function insistOnVector(
  { name, conditions, places }: FaultRule,
  shapes: readonly FunctionShape[],
): void {
  const most = Math.max(
    ...shapes.map(({ config }) => vectorsOf(config)).flatMap(({ msi, msix }) => [msi, msix]),
  );
  if (most === 0) {
    refuse(`${name} needs MSI-X or MSI, which the device does not have`, 'leave it out');
  }
  const { vector = 0 } = conditions;
  if (vector >= most) {
    refuse(`there is no vector ${vector}`, `name one of 0 to ${most - 1}`, places.vector);
  }
}

function hasAer({ config }: FunctionShape): boolean {
  const { advancedErrorReporting } = ExtendedCapabilityId;
  return findExtendedCapability(config, advancedErrorReporting) !== undefined;
}

/** `position`: where in the rule it is said; else it is the fault itself. */
function refuse(what: string, fix: string, position = 0): never {
  throw new RuleError({ position, what, fix });
}
