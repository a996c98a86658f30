// A profile may be anybody's file: whatever is wrong with it is told by property and rule.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { HostError } from '../../../backend/device/physical-device.ts';
import { decodeProfile, describeCard } from '../../../backend/devices/device-profile.ts';
import { findCapability } from '../../../backend/pci/capability-chain.ts';
import { CapabilityId } from '../../../backend/pci/spec/capability-ids.ts';

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

function msixOf(config: Uint8Array): number {
  return findCapability(config, CapabilityId.msix)!.offset;
}

describe('a profile', () => {
  it.each<[string, unknown, string]>([
    ['card', null, 'card is no object'],
    ['card.pf', null, 'card.pf is no object'],
    ['card.vfDeviceId', -1, 'card.vfDeviceId is no whole number from 0 to 65534'],
    ['totalVfs', '7', 'totalVfs is no whole number from 1 to 65535'],
    ['pfIds', 2 ** 32, 'pfIds is no whole number from 0 to 4294967295'],
    ['vf.config', 'zz', 'vf.config is not 256 or 4096 bytes in hexadecimal'],
    ['vf.config', `${'00'.repeat(256)}zz`, 'vf.config is not 256 or 4096 bytes in hexadecimal'],
    ['vf.bars', [null], 'vf.bars[0] is no object'],
    ['vf.bars.0.kind', 'rom', 'vf.bars[0].kind is no kind of BAR'],
    ['vf.bars.0.size', 1.5, 'vf.bars[0].size is no whole number from 0 to 4503599627370496'],
    [
      'vf.bars.0.size',
      3000,
      'vf.bars cannot be: BAR 0 (memory64): a size of 3000 bytes is not a power',
    ],
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
    ['vf.regions.0.size', 32768, 'vf.regions[0].size is not that of BAR 0'],
    [
      'vf.regions.0.mappable',
      [{ offset: 1, size: 4096 }],
      'vf.regions[0].mappable is not all pages of 4096 bytes',
    ],
    ['vf.regions.7.size', 256, 'vf.regions[7].size is not as many bytes as vf.config has'],
    ['pfIds', 5, 'pfIds is not what card.pf.config begins with'],
    ['card.vfBars.0.kind', 'io', 'card.vfBars are not all memory: a VF has no I/O space'],
    ['card.pf.config', '00'.repeat(4096), 'card.pf.config is of no function that answers'],
    ['vf.config', 'ff'.repeat(4096), 'vf.config has no PCI Express capability'],
  ])('with %s = %j is refused', (path, value, message) => {
    expect(refusalOf(changed(path.split('.'), value))).toContain(message);
  });

  it.each<[string, (config: Buffer) => unknown, string]>([
    ['no SR-IOV', (config) => config.fill(0, 0x100), 'card.pf.config has no SR-IOV capability'],
    [
      'a capability that its space is too short for',
      (config) => {
        config.writeUInt32LE(0xffc1_0001, 0x100);
        config.writeUInt32LE(0x0001_0010, 0xffc);
      },
      'card.pf.config has a capability at 0xffc that is longer than the room it has there',
    ],
    [
      'one in another',
      (config) => {
        config.writeUInt32LE(0x1101_0010, 0x100);
        config.writeUInt32LE(0x0001_000e, 0x110);
      },
      'card.pf.config has a capability at 0x100 that is longer than the room it has there',
    ],
    [
      'MSI-X in a BAR that there is not',
      (config) => config.writeUInt32LE(0x3, msixOf(config) + 4),
      'card.pf.config has MSI-X beyond its BAR 3',
    ],
    [
      'pending bits behind their BAR',
      (config) => config.writeUInt32LE(0x4000, msixOf(config) + 8),
      'card.pf.config has MSI-X beyond its BAR 0',
    ],
  ])('of a PF with %s is refused', (_, change, message) => {
    const config = Buffer.from(decodeProfile(TEXT, 'card.json').card!.pf.config);
    change(config);
    expect(refusalOf(changed(['card', 'pf', 'config'], config.toString('hex')))).toContain(message);
  });

  it('is refused with the line of what is wrong, as with that where it is cut off', () => {
    const lines = TEXT.split('\n');
    const line = (found: RegExp): number => lines.findIndex((each) => found.test(each)) + 1;
    const at = (found: RegExp, other: string): string =>
      refusalOf(TEXT.replace(found, (whole) => whole.replace(/[^ ]+$/, other)));
    expect(at(/"totalVfs": \d+/, '0')).toBe(
      `line ${line(/totalVfs/)}: totalVfs is no whole number from 1 to 65535`,
    );
    expect(at(/"kind": "memory64"/, '"rom"')).toBe(
      `line ${line(/memory64/)}: vf.bars[0].kind is no kind of BAR`,
    );
    expect(refusalOf(lines.slice(0, 9).join('\n'))).toMatch(/^line 9: /);
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
