// A profile may be anybody's file: whatever is wrong with it is told by property and rule.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { HostError } from '../../../backend/device/physical-device.ts';
import { decodeProfile, describeCard } from '../../../backend/devices/device-profile.ts';

type Tree = Record<string, unknown>;

const TEXT = readFileSync(
  new URL('../../../examples/profiles/qemu-nvme.json', import.meta.url),
  'utf8',
);

/** The profile with another value at a place. */
function changed(path: readonly string[], value: unknown): string {
  const tree = JSON.parse(TEXT) as Tree;
  const parent = path.slice(0, -1).reduce((at, name) => at[name] as Tree, tree);
  parent[path.at(-1)!] = value;
  return JSON.stringify(tree);
}

/** All places of a tree but its root. */
function placesIn(tree: unknown, path: readonly string[] = []): string[][] {
  const inside = typeof tree === 'object' && tree !== null ? Object.entries(tree) : [];
  return inside.flatMap(([name, value]) => [[...path, name], ...placesIn(value, [...path, name])]);
}

function refusalOf(text: string): string {
  try {
    decodeProfile(text, 'card.json');
    return 'none';
  } catch (error) {
    expect(error).toBeInstanceOf(HostError);
    return (error as HostError).what;
  }
}

describe('a profile', () => {
  it.each<[string, unknown, string]>([
    ['card', null, 'card is no object'],
    ['card.pf', null, 'card.pf is no object'],
    ['card.vfDeviceId', -1, 'card.vfDeviceId is no whole number from 0 to 65535'],
    ['totalVfs', '7', 'totalVfs is no whole number from 1 to 65535'],
    ['pfIds', 2 ** 32, 'pfIds is no whole number from 0 to 4294967295'],
    ['vf.config', 'zz', 'vf.config is not 256 or 4096 bytes in hexadecimal'],
    ['vf.config', `${'00'.repeat(256)}zz`, 'vf.config is not 256 or 4096 bytes in hexadecimal'],
    ['vf.bars', [null], 'vf.bars[0] is no object'],
    ['vf.bars.0.kind', 'rom', 'vf.bars[0].kind is no kind of BAR'],
    ['vf.bars.0.size', 1.5, 'vf.bars[0].size is no whole number from 0 to 4503599627370496'],
    ['vf.bars.0.size', 3000, 'vf.bars: BAR 0 (memory64): a size of 3000 bytes is not a power'],
    ['vf.regions', {}, 'vf.regions is no list'],
    ['vf.regions', [], 'vf.regions has no region 0, but there is a BAR'],
    ['vf.regions.0', null, 'vf.regions[0] is no object'],
    ['vf.regions.0.index', 1, 'vf.regions[0].index is not 0'],
    ['vf.regions.0.size', -1, 'vf.regions[0].size is no whole number'],
    ['vf.regions.0.readable', 1, 'vf.regions[0].readable is neither true nor false'],
    ['vf.regions.0.mappable', null, 'vf.regions[0].mappable is no list'],
    [
      'vf.regions.0.mappable',
      [{ offset: 0, size: 2 ** 40 }],
      'vf.regions[0].mappable is not all inside the region',
    ],
    ['card.pf.irqs.2.count', 1e9, 'card.pf.irqs[2].count is no whole number from 0 to 4096'],
  ])('with %s = %j is refused', (path, value, message) => {
    expect(refusalOf(changed(path.split('.'), value))).toContain(message);
  });

  it('with nonsense anywhere is taken, or refused in words that name no nonsense of ours', () => {
    const nonsense = [null, true, -1, 1e21, 'x', [], {}, [null], [{}], undefined];
    for (const path of placesIn(JSON.parse(TEXT))) {
      for (const value of nonsense) {
        expect(refusalOf(changed(path, value))).not.toMatch(/undefined|\[object|NaN|cannot/i);
      }
    }
  });

  it('of a card with more VFs than a device in RAM may have gives as many as that', () => {
    const profile = decodeProfile(changed(['totalVfs'], 4000), 'card.json');
    const options = { mostVfs: undefined, enableMilliseconds: 0 };
    expect(describeCard(profile, 'card.json', options).totalVfs).toBe(255);
  });
});
