// The rules of a declaration as data: each property beside what it must be, so that what has no rule is no property. Pure.

import { BAR_COUNT, BAR_KINDS } from '../../pci/bars.ts';
import { EXTENDED_CONFIG_BYTES } from '../../pci/spec/header.ts';
import { MOST_MSIX_VECTORS } from '../../pci/spec/msix.ts';
import { MOST_VFS } from '../../pci/spec/sriov.ts';
import { VENDOR_SPECIFIC_BYTES } from './capabilities.ts';
import type {
  BarDeclaration,
  BarPart,
  DeviceDeclaration,
  FunctionDeclaration,
  RegisterLabels,
} from './declaration.ts';

/** What a value must be, in words that follow the property's name. */
export interface Rule {
  readonly says: string;
  allows(value: unknown): boolean;
}

/** One for each property that there may be. */
export type Rules<T> = { readonly [Property in keyof Required<T>]: Rule };

const MSI_VECTORS: readonly unknown[] = [0, 1, 2, 4, 8, 16, 32];
const PINS: readonly unknown[] = ['A', 'B', 'C', 'D'];

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function whole(least: number, most: number): Rule {
  return {
    says: `must be a whole number from ${least} to ${most}`,
    allows: (value) => Number.isInteger(value) && Number(value) >= least && Number(value) <= most,
  };
}

function maybe(rule: Rule): Rule {
  return { says: rule.says, allows: (value) => value === undefined || rule.allows(value) };
}

function oneOf(values: readonly unknown[], says: string): Rule {
  return { says, allows: (value) => values.includes(value) };
}

const FUNCTION: Rule = {
  says: 'must be a function',
  allows: (value) => typeof value === 'function',
};
const YES_OR_NO: Rule = {
  says: 'must be true or false',
  allows: (value) => typeof value === 'boolean',
};
const FUNCTION_DECLARATION: Rule = {
  says: 'must be an object with bars and create',
  allows: isObject,
};
const PLACE = whole(0, Number.MAX_SAFE_INTEGER);
const SIZE = whole(1, Number.MAX_SAFE_INTEGER);
const TABLE: Rule = {
  says: 'must be registers by name: { control: reg32(0x00, …) }',
  allows: isObject,
};
const RESET: Rule = { says: 'must be values by name of register', allows: isObject };
const LABELS: Rule = {
  says: 'must be { title, names } with text in them',
  allows(value) {
    const { title, names = {} } = (value ?? {}) as RegisterLabels;
    const isText = (each: unknown): boolean => each === undefined || typeof each === 'string';
    return isObject(value) && isObject(names) && [title, ...Object.values(names)].every(isText);
  },
};

export const DEVICE: Rules<DeviceDeclaration<unknown>> = {
  name: {
    says: 'must be a word of letters, digits, dots and dashes, 64 at most',
    allows: (value) => typeof value === 'string' && /^[\w.-]{1,64}$/.test(value),
  },
  vendorId: whole(0, 0xfffe),
  deviceId: whole(0, 0xfffe),
  vfDeviceId: whole(0, 0xfffe),
  subsystemVendorId: maybe(whole(0, 0xffff)),
  subsystemId: maybe(whole(0, 0xffff)),
  classCode: whole(0, 0xff_ffff),
  revision: maybe(whole(0, 0xff)),
  totalVfs: whole(1, MOST_VFS),
  serialNumber: maybe({
    says: 'must be a bigint of 64 bits, such as 0x1122n',
    allows: (value) => typeof value === 'bigint' && BigInt.asUintN(64, value) === value,
  }),
  enableMilliseconds: maybe(whole(0, 60_000)),
  share: maybe(FUNCTION),
  unshare: maybe(FUNCTION),
  pf: FUNCTION_DECLARATION,
  vf: FUNCTION_DECLARATION,
};

export const PCI_FUNCTION: Rules<FunctionDeclaration<unknown>> = {
  create: FUNCTION,
  bars: { says: 'must be an array; memoryBar(…) makes one of it', allows: Array.isArray },
  msixVectors: maybe(whole(0, MOST_MSIX_VECTORS)),
  msiVectors: maybe(oneOf(MSI_VECTORS, 'must be 0, 1, 2, 4, 8, 16 or 32')),
  interruptPin: maybe(oneOf(PINS, 'must be A, B, C or D, or none')),
  advancedErrorReporting: maybe(YES_OR_NO),
  vendorSpecific: maybe({
    says: `must be a Uint8Array of ${VENDOR_SPECIFIC_BYTES} bytes at most`,
    allows: (value) => value instanceof Uint8Array && value.length <= VENDOR_SPECIFIC_BYTES,
  }),
  configImage: maybe({
    says: `must be a Uint8Array of ${EXTENDED_CONFIG_BYTES} bytes`,
    allows: (value) => value instanceof Uint8Array && value.length === EXTENDED_CONFIG_BYTES,
  }),
};

export const BAR: Rules<BarDeclaration> = {
  index: whole(0, BAR_COUNT - 1),
  size: SIZE,
  kind: oneOf(BAR_KINDS, 'must be memory32, memory64 or io'),
  prefetchable: YES_OR_NO,
  parts: { says: 'must be an array of registers(…), ram(…), …', allows: Array.isArray },
};

const KIND: Rule = { says: 'must be a text', allows: (value) => typeof value === 'string' };

/** By kind of part. */
export const PARTS: {
  readonly [Kind in BarPart['kind']]: Rules<Extract<BarPart, { kind: Kind }>>;
} = {
  ram: { kind: KIND, at: PLACE, size: SIZE },
  registers: { kind: KIND, at: PLACE, size: SIZE, table: TABLE, reset: RESET, labels: LABELS },
  trapped: { kind: KIND, at: PLACE, size: SIZE, table: maybe(TABLE), labels: maybe(LABELS) },
  msix: { kind: KIND, at: PLACE, pendingAt: PLACE },
};
