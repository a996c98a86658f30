// Whether a declaration makes sense: it may come from a module of somebody else's, of any shape. Pure.

import { PAGE_BYTES } from '../../../protocol/page.ts';
import { assertBarShapes } from '../../pci/bars.ts';
import { ones, type Register, type RegisterTable } from '../../pci/registers.ts';
import { MSIX_ENTRY_BYTES } from '../../pci/spec/msix.ts';
import type {
  BarDeclaration,
  BarPart,
  DeviceDeclaration,
  FunctionDeclaration,
} from './declaration.ts';
import { BAR, DEVICE, isObject, PARTS, PCI_FUNCTION, type Rules } from './declaration-rules.ts';

/** What is wrong: `pf.bars[0].parts[1]`, and the rule that it breaks. */
export interface Misdeclaration {
  readonly property: string;
  readonly rule: string;
}

/** Of one part: all its bytes are kept. */
const MOST_REGISTER_BYTES = 1 << 20;
const REGISTER_BYTES: readonly unknown[] = [1, 2, 4];
/** Places of table and pending bits are less. */
const MSIX_REACH = 2 ** 32;

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
  const isDevice = isObject(value) && !Array.isArray(value) && !(value instanceof Promise);
  demand(isDevice, 'default export', 'must be what defineDevice({…}) gives');
  const device = value as unknown as DeviceDeclaration<unknown>;
  checkProperties(device, '', DEVICE);
  checkFunction(device.pf, 'pf');
  checkFunction(device.vf, 'vf');
  const isMemory = device.vf.bars.every(({ kind }) => kind !== 'io');
  demand(isMemory, 'vf.bars', 'must all be memory: a VF has no I/O space');
  demand(device.vf.interruptPin === undefined, 'vf.interruptPin', 'must be none: a VF has no INTx');
}

/** Each by its rule, and none besides: what is misspelt would be left out in silence. */
function checkProperties<T extends object>(value: T, path: string, rules: Rules<T>): void {
  for (const property of Object.keys(value)) {
    const known = Object.keys(rules);
    const isKnown = known.includes(property);
    demand(isKnown, `${path}${property}`, `must not be there; there are ${known.join(', ')}`);
  }
  for (const property of Object.keys(rules) as (keyof T & string)[]) {
    const { says, allows } = rules[property];
    demand(allows(value[property]), `${path}${property}`, says);
  }
}

function checkFunction(value: FunctionDeclaration<unknown>, path: string): void {
  checkProperties(value, `${path}.`, PCI_FUNCTION);
  const { msixVectors = 0 } = value;
  for (const [index, bar] of value.bars.entries()) {
    const name = `${path}.bars[${index}]`;
    demand(isObject(bar) && Array.isArray(bar.parts), name, 'must be what memoryBar(…) gives');
    checkProperties(bar, `${name}.`, BAR);
  }
  try {
    assertBarShapes(value.bars);
  } catch (error) {
    throw new Refusal(`${path}.bars`, `must fit a function: ${(error as Error).message}`);
  }
  // A size that is none would be told as parts that do not fit.
  for (const [index, bar] of value.bars.entries()) {
    checkParts(bar, `${path}.bars[${index}]`, msixVectors);
  }
  checkTablesApart(value.bars, path);
  const tables = value.bars.flatMap(({ parts }) => parts.filter(({ kind }) => kind === 'msix'));
  const isPlaced = tables.length === (msixVectors > 0 ? 1 : 0);
  demand(
    isPlaced,
    `${path}.msixVectors`,
    'must go with one msixTable(…) in a BAR: one for all, none for 0',
  );
}

/** A model asks for its registers by their table. */
function checkTablesApart(bars: readonly BarDeclaration[], path: string): void {
  const seen = new Set<RegisterTable>();
  for (const [index, { parts }] of bars.entries()) {
    for (const [position, part] of parts.entries()) {
      if (part.kind === 'registers') {
        const property = `${path}.bars[${index}].parts[${position}].table`;
        demand(!seen.has(part.table), property, 'must not be the table of another part: copy it');
        seen.add(part.table);
      }
    }
  }
}

function checkParts(bar: BarDeclaration, path: string, msixVectors: number): void {
  const ranges = bar.parts.flatMap((part, index) => {
    const name = `${path}.parts[${index}]`;
    demand(isObject(part), name, 'must be registers(…), trapped(…), ram(…) or msixTable(…)');
    const isOfMemory = part.kind === 'ram' || part.kind === 'msix';
    const isFitting = bar.kind !== 'io' || !isOfMemory;
    demand(isFitting, name, 'must not be memory pages or an MSI-X table: the BAR is I/O space');
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
  const kinds = Object.keys(PARTS);
  demand(kinds.includes(part.kind), `${name}.kind`, `must be one of ${kinds.join(', ')}`);
  checkProperties(part, `${name}.`, PARTS[part.kind] as Rules<BarPart>);
  if (part.kind === 'msix') {
    const isAligned = part.at % 8 === 0 && part.pendingAt % 8 === 0;
    demand(isAligned, name, 'must be at multiples of 8');
    const isReached = Math.max(part.at, part.pendingAt) < MSIX_REACH;
    demand(isReached, name, 'must begin in the first 4 GiB of its BAR: MSI-X has 32 bits for it');
    const pendingEnd = part.pendingAt + Math.ceil(msixVectors / 64) * 8;
    return [
      { name, start: part.at, end: part.at + msixVectors * MSIX_ENTRY_BYTES },
      { name, start: part.pendingAt, end: pendingEnd },
    ];
  }
  const unit = part.kind === 'ram' ? PAGE_BYTES : 4;
  const isAligned = part.at % unit === 0 && part.size % unit === 0;
  demand(isAligned, name, `must begin and end at multiples of ${unit}`);
  if (part.kind === 'registers') {
    const isSmall = part.size <= MOST_REGISTER_BYTES;
    demand(isSmall, `${name}.size`, `must be ${MOST_REGISTER_BYTES} at most: cut it in parts`);
  }
  if (part.kind !== 'ram' && part.table !== undefined) {
    checkTable(part.table, part.size, `${name}.table`);
  }
  if (part.kind === 'registers') {
    checkReset(part.reset, part.table, `${name}.reset`);
  }
  return [{ name, start: part.at, end: part.at + part.size }];
}

function checkTable(table: RegisterTable, size: number, path: string): void {
  let end = 0;
  let before = '';
  for (const [name, register] of Object.entries(table)) {
    checkRegister(register, size, `${path}.${name}`);
  }
  const inOrder = Object.entries(table).sort(([, one], [, other]) => one.offset - other.offset);
  for (const [name, { offset, bytes }] of inOrder) {
    demand(offset >= end, `${path}.${name}`, `must not overlap ${before}`);
    end = offset + bytes;
    before = name;
  }
}

function checkRegister(register: Register, size: number, path: string): void {
  const isRegister =
    isObject(register) &&
    REGISTER_BYTES.includes(register.bytes) &&
    Number.isInteger(register.offset) &&
    isMask(register.rw, register.bytes) &&
    isMask(register.rw1c, register.bytes) &&
    isObject(register.fields) &&
    Object.values(register.fields).every((each) => isField(each, register.bytes));
  demand(isRegister, path, 'must be what reg8(…), reg16(…) or reg32(…) gives');
  const { offset, bytes } = register;
  demand(offset >= 0 && offset % bytes === 0, path, `must be at a multiple of its ${bytes} bytes`);
  demand(offset + bytes <= size, path, `must lie inside its part of ${size} bytes`);
}

function isMask(value: unknown, bytes: number): boolean {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) <= ones(8 * bytes);
}

function isField(value: unknown, bytes: number): boolean {
  if (!isObject(value)) {
    return false;
  }
  const { high, low, access } = value;
  const isInside = Number(low) >= 0 && Number(high) >= Number(low) && Number(high) < 8 * bytes;
  const isWhole = Number.isInteger(low) && Number.isInteger(high);
  return isWhole && isInside && typeof access === 'string';
}

function checkReset(
  reset: Readonly<Record<string, number>>,
  table: RegisterTable,
  path: string,
): void {
  for (const [name, value] of Object.entries(reset)) {
    const register = Object.hasOwn(table, name) ? table[name] : undefined;
    if (register === undefined) {
      throw new Refusal(`${path}.${name}`, 'must be of a register of its table');
    }
    const isFitting = isMask(value, register.bytes);
    const bits = 8 * register.bytes;
    demand(isFitting, `${path}.${name}`, `must be an unsigned number of ${bits} bits`);
  }
}

function demand(isTrue: boolean, property: string, rule: string): void {
  if (!isTrue) {
    throw new Refusal(property, rule);
  }
}
