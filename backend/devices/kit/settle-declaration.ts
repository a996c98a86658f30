// A declaration as plain data: it may be an object of a class, or have getters. Each property is read once, so that what was
// checked is what is used, and nothing gets lost where the object is spread. Pure.

import { BAR, DEVICE, isObject, PARTS, PCI_FUNCTION } from './declaration-rules.ts';

type Properties = Record<string, unknown>;

/** Of what is no declaration, as much as there is. Tables of registers stay the same objects: a model asks for its registers by them. */
export function settled(value: unknown): unknown {
  if (!isObject(value) || value instanceof Promise) {
    return value;
  }
  const device = plain(value, DEVICE);
  return { ...device, pf: settledFunction(device.pf), vf: settledFunction(device.vf) };
}

function settledFunction(value: unknown): unknown {
  if (!isObject(value)) {
    return value;
  }
  const declared = plain(value, PCI_FUNCTION);
  return { ...declared, bars: each(declared.bars, settledBar) };
}

function settledBar(value: unknown): unknown {
  if (!isObject(value)) {
    return value;
  }
  const bar = plain(value, BAR);
  return { ...bar, parts: each(bar.parts, settledPart) };
}

function settledPart(value: unknown): unknown {
  return isObject(value) ? plain(value, { ...PARTS.registers, ...PARTS.msix }) : value;
}

/** Holes of a list are elements, too. */
function each(list: unknown, settle: (value: unknown) => unknown): unknown {
  return Array.isArray(list) ? Array.from(list, settle) : list;
}

/** What the object has of itself, and what it inherits of what there is a rule for; functions stay the object's. */
function plain(value: Properties, rules: object): Properties {
  const inherited = Object.keys(rules).filter((name) => name in value);
  const names = new Set([...Object.keys(value), ...inherited]);
  return Object.fromEntries(
    Array.from(names, (name) => {
      const property = value[name];
      return [name, typeof property === 'function' ? property.bind(value) : property];
    }),
  );
}
