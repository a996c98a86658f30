// Whether a declaration makes sense: it may come from a module of somebody else's, of any shape. Pure.

import { PAGE_BYTES } from '../../../protocol/page.ts';
import { assertBarShapes } from '../../pci/bars.ts';
import { MSIX_ENTRY_BYTES } from '../../pci/spec/msix.ts';
import { VENDOR_SPECIFIC_BYTES } from './capabilities.ts';
import type {
  BarDeclaration,
  BarPart,
  DeviceDeclaration,
  FunctionDeclaration,
  RegisterLabels,
} from './declaration.ts';

/** What is wrong: `pf.bars[0].parts[1]`, and the rule that it breaks. */
export interface Misdeclaration {
  readonly property: string;
  readonly rule: string;
}

const MOST_VFS = 255;
const MOST_MSIX_VECTORS = 2048;
const MSI_VECTORS = [0, 1, 2, 4, 8, 16, 32];

class Refusal extends Error {
  readonly misdeclaration: Misdeclaration;

  constructor(property: string, rule: string) {
    super(`${property} ${rule}`);
    this.misdeclaration = { property, rule };
  }
}

/** The first thing that is wrong, or undefined where `value` is a DeviceDeclaration. */
export function checkDeclaration(value: unknown): Misdeclaration | undefined {
  try {
    checkDevice(value);
    return undefined;
  } catch (error) {
    if (error instanceof Refusal) {
      return error.misdeclaration;
    }
    throw error;
  }
}

function checkDevice(value: unknown): void {
  demand(isObject(value), 'default export', 'must be what defineDevice({…}) gives');
  const device = value as unknown as DeviceDeclaration<unknown>;
  const isName = typeof device.name === 'string' && /^[\w.-]+$/.test(device.name);
  demand(isName, 'name', 'must be a word of letters, digits, dots and dashes');
  for (const property of ['vendorId', 'deviceId', 'vfDeviceId'] as const) {
    demandWhole(device[property], property, 0, 0xfffe);
  }
  for (const property of ['subsystemVendorId', 'subsystemId'] as const) {
    demandWhole(device[property] ?? 0, property, 0, 0xffff);
  }
  demandWhole(device.classCode, 'classCode', 0, 0xff_ffff);
  demandWhole(device.revision ?? 0, 'revision', 0, 0xff);
  demandWhole(device.totalVfs, 'totalVfs', 1, MOST_VFS);
  demandWhole(device.enableMilliseconds ?? 0, 'enableMilliseconds', 0, 60_000);
  const { serialNumber = 0n } = device;
  const isSerial =
    typeof serialNumber === 'bigint' && BigInt.asUintN(64, serialNumber) === serialNumber;
  demand(isSerial, 'serialNumber', 'must be a bigint of 64 bits, such as 0x1122n');
  demandFunction(device.share, 'share');
  demandFunction(device.unshare, 'unshare');
  checkFunction(device.pf, 'pf');
  checkFunction(device.vf, 'vf');
  const isMemory = device.vf.bars.every(({ kind }) => kind !== 'io');
  demand(isMemory, 'vf.bars', 'must all be memory: a VF has no I/O space');
  demand(device.vf.interruptPin === undefined, 'vf.interruptPin', 'must be none: a VF has no INTx');
}

function checkFunction(value: FunctionDeclaration<unknown>, path: string): void {
  demand(isObject(value), path, 'must be an object with bars and create');
  demand(typeof value.create === 'function', `${path}.create`, 'must be a function');
  demand(
    Array.isArray(value.bars),
    `${path}.bars`,
    'must be an array; memoryBar(…) makes one of it',
  );
  const { msiVectors = 0, msixVectors = 0, vendorSpecific } = value;
  demand(MSI_VECTORS.includes(msiVectors), `${path}.msiVectors`, 'must be 0, 1, 2, 4, 8, 16 or 32');
  demandWhole(msixVectors, `${path}.msixVectors`, 0, MOST_MSIX_VECTORS);
  const isPin = [undefined, 'A', 'B', 'C', 'D'].includes(value.interruptPin);
  demand(isPin, `${path}.interruptPin`, 'must be A, B, C or D, or none');
  const isContent =
    vendorSpecific === undefined ||
    (vendorSpecific instanceof Uint8Array && vendorSpecific.length <= VENDOR_SPECIFIC_BYTES);
  demand(isContent, `${path}.vendorSpecific`, `must be ${VENDOR_SPECIFIC_BYTES} bytes at most`);
  for (const [index, bar] of value.bars.entries()) {
    checkBar(bar, `${path}.bars[${index}]`, msixVectors);
  }
  try {
    assertBarShapes(value.bars);
  } catch (error) {
    throw new Refusal(`${path}.bars`, `must fit a function: ${(error as Error).message}`);
  }
  const tables = value.bars.flatMap(({ parts }) => parts.filter(({ kind }) => kind === 'msix'));
  const isPlaced = tables.length === (msixVectors > 0 ? 1 : 0);
  demand(
    isPlaced,
    `${path}.msixVectors`,
    'must go with one msixTable(…) in a BAR: one for all, none for 0',
  );
}

function checkBar(bar: BarDeclaration, path: string, msixVectors: number): void {
  demand(isObject(bar) && Array.isArray(bar.parts), path, 'must be what memoryBar(…) gives');
  const ranges = bar.parts.flatMap((part, index) => {
    const name = `${path}.parts[${index}]`;
    demand(isObject(part), name, 'must be registers(…), trapped(…), ram(…) or msixTable(…)');
    return rangesOf(part, name, msixVectors);
  });
  ranges.sort((one, other) => one.start - other.start);
  let end = 0;
  for (const range of ranges) {
    demand(range.start >= end, range.name, 'must not overlap another part of its BAR');
    demand(range.end <= bar.size, range.name, `must lie inside its BAR of ${bar.size} bytes`);
    end = range.end;
  }
}

function rangesOf(part: BarPart, name: string, msixVectors: number) {
  demandWhole(part.at, `${name}.at`, 0, Number.MAX_SAFE_INTEGER);
  if (part.kind === 'msix') {
    const isAligned = part.at % 8 === 0 && part.pendingAt % 8 === 0;
    demand(isAligned, name, 'must be at multiples of 8');
    const pendingEnd = part.pendingAt + Math.ceil(msixVectors / 64) * 8;
    return [
      { name, start: part.at, end: part.at + msixVectors * MSIX_ENTRY_BYTES },
      { name, start: part.pendingAt, end: pendingEnd },
    ];
  }
  const kinds = ['ram', 'registers', 'trapped'];
  demand(kinds.includes(part.kind), `${name}.kind`, `must be ${kinds.join(', ')} or msix`);
  demandWhole(part.size, `${name}.size`, 1, Number.MAX_SAFE_INTEGER);
  const unit = part.kind === 'ram' ? PAGE_BYTES : 4;
  const isAligned = part.at % unit === 0 && part.size % unit === 0;
  demand(isAligned, name, `must begin and end at multiples of ${unit}`);
  if (part.kind !== 'ram') {
    checkLabels(part.labels, `${name}.labels`);
  }
  return [{ name, start: part.at, end: part.at + part.size }];
}

function checkLabels(labels: RegisterLabels | undefined, path: string): void {
  const { title, names = {} } = labels ?? {};
  const isNamed = isObject(names) && [title, ...Object.values(names)].every(isTextOrNothing);
  demand(isNamed, path, 'must be { title, names } with text in them');
}

function isTextOrNothing(value: unknown): boolean {
  return value === undefined || typeof value === 'string';
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function demand(isTrue: boolean, property: string, rule: string): void {
  if (!isTrue) {
    throw new Refusal(property, rule);
  }
}

function demandWhole(value: unknown, property: string, least: number, most: number): void {
  const isWhole = Number.isInteger(value) && Number(value) >= least && Number(value) <= most;
  demand(isWhole, property, `must be a whole number from ${least} to ${most}`);
}

function demandFunction(value: unknown, property: string): void {
  demand(value === undefined || typeof value === 'function', property, 'must be a function');
}
