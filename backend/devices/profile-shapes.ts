// The parts of a profile, each by its rule: the file may be anybody's, and cut, edited or made up. Pure.

import { PAGE_BYTES } from '../../protocol/page.ts';
import type { FunctionShape } from '../device/physical-device.ts';
import { assertBarShapes, BAR_COUNT, BAR_KINDS, type BarShape } from '../pci/bars.ts';
import { CONFIG_BYTES, EXTENDED_CONFIG_BYTES } from '../pci/spec/header.ts';

type Properties = Readonly<Record<string, unknown>>;
type Rule = (value: unknown, name: string) => void;

const CONFIG_SIZES: readonly number[] = [CONFIG_BYTES, EXTENDED_CONFIG_BYTES];
const LARGEST_REGION = 2 ** 52;
const MOST_REGIONS = 64;
const MOST_VECTORS = 4096;

/** What is wrong, and with which value of the file: `card.vfBars[0].kind`, or all of it where there is no name. */
export class ProfileFault extends Error {
  readonly place: string;
  readonly what: string;

  constructor(place: string, what: string) {
    super(`${place} ${what}`.trimStart());
    this.place = place;
    this.what = what;
  }
}

/** @throws ProfileFault unless it is so */
export function demand(isTrue: boolean, place: string, what: string): asserts isTrue {
  if (!isTrue) {
    throw new ProfileFault(place, what);
  }
}

/** A whole number up to `most`. */
export function whole(most: number, least = 0): Rule {
  return (value, name) => {
    const isWhole = Number.isInteger(value) && Number(value) >= least && Number(value) <= most;
    demand(isWhole, name, `is no whole number from ${least} to ${most}`);
  };
}

const truth: Rule = (value, name) =>
  demand(typeof value === 'boolean', name, 'is neither true nor false');

const BAR: Readonly<Record<keyof BarShape, Rule>> = {
  index: whole(BAR_COUNT - 1),
  size: whole(LARGEST_REGION),
  kind: (value, name) =>
    demand(
      BAR_KINDS.some((kind) => kind === value),
      name,
      'is no kind of BAR',
    ),
  prefetchable: truth,
};
const REGION = {
  size: whole(LARGEST_REGION),
  readable: truth,
  writable: truth,
};
const IRQ = { index: whole(MOST_REGIONS), count: whole(MOST_VECTORS), flags: whole(0xffff_ffff) };
const PIECE = { offset: whole(LARGEST_REGION), size: whole(LARGEST_REGION) };

export function isObject(value: unknown): value is Properties {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Each element by the rules of its properties. */
function listFrom(
  value: unknown,
  name: string,
  rules: Readonly<Record<string, Rule>>,
): Properties[] {
  demand(Array.isArray(value) && value.length <= MOST_REGIONS, name, 'is no list');
  for (const [position, each] of value.entries()) {
    demand(isObject(each), `${name}[${position}]`, 'is no object');
    for (const [property, rule] of Object.entries(rules)) {
      rule(each[property], `${name}[${position}].${property}`);
    }
  }
  return value;
}

/** @throws ProfileFault */
export function barsFrom(value: unknown, name: string): readonly BarShape[] {
  const bars = listFrom(value, name, BAR) as unknown as BarShape[];
  try {
    assertBarShapes(bars);
  } catch (error) {
    throw new ProfileFault(name, `cannot be: ${(error as Error).message}`);
  }
  return bars;
}

/** @throws ProfileFault */
export function shapeFrom(value: unknown, name: string): FunctionShape {
  demand(isObject(value), name, 'is no object');
  const { config, regions, irqs, bars } = value;
  const isHexadecimal = typeof config === 'string' && /^(?:[0-9a-f]{2})*$/i.test(config);
  const bytes = isHexadecimal ? Buffer.from(config, 'hex') : new Uint8Array();
  const sizes = CONFIG_SIZES.join(' or ');
  demand(
    CONFIG_SIZES.includes(bytes.length),
    `${name}.config`,
    `is not ${sizes} bytes in hexadecimal`,
  );
  for (const [index, region] of listFrom(regions, `${name}.regions`, REGION).entries()) {
    const path = `${name}.regions[${index}]`;
    demand(region.index === index, `${path}.index`, `is not ${index}`);
    for (const piece of listFrom(region.mappable, `${path}.mappable`, PIECE)) {
      const isInside = Number(piece.offset) + Number(piece.size) <= Number(region.size);
      demand(isInside, `${path}.mappable`, 'is not all inside the region');
      const isWhole =
        Number(piece.offset) % PAGE_BYTES === 0 && Number(piece.size) % PAGE_BYTES === 0;
      demand(isWhole, `${path}.mappable`, `is not all pages of ${PAGE_BYTES} bytes`);
    }
  }
  listFrom(irqs, `${name}.irqs`, IRQ);
  for (const { index, size } of barsFrom(bars, `${name}.bars`)) {
    const region = Number((regions as Properties[])[index]?.size ?? 0);
    demand(region > 0, `${name}.regions`, `has no region ${index}, but there is a BAR`);
    demand(region === size, `${name}.regions[${index}].size`, `is not that of BAR ${index}`);
  }
  return { ...(value as unknown as FunctionShape), config: new Uint8Array(bytes) };
}
