// BAR sizing, placement and capability walks of the reference VMM, against a config space made of a plain array.

import { describe, expect, it } from 'vitest';
import { AddressSpace } from '../../../../vmm-glue/reference-vmm/address-space.ts';
import { sizeBars, writeBar } from '../../../../vmm-glue/reference-vmm/bars.ts';
import { findCapabilities } from '../../../../vmm-glue/reference-vmm/capabilities.ts';
import type {
  AccessLength,
  ConfigAccess,
} from '../../../../vmm-glue/reference-vmm/config-access.ts';

const BAR0 = 0x10;

/** Config space in memory; dwords at `masks` offsets keep only the bits of their mask, and show fixed type bits. */
class FakeConfig implements ConfigAccess {
  readonly bytes = new DataView(new ArrayBuffer(4096));
  readonly #bars = new Map<number, { mask: number; type: number }>();

  /** A BAR dword: `mask` the writable bits, `type` the fixed ones. */
  bar(index: number, mask: number, type: number): this {
    this.#bars.set(BAR0 + 4 * index, { mask, type });
    this.bytes.setUint32(BAR0 + 4 * index, type, true);
    return this;
  }

  async read(offset: number, length: AccessLength): Promise<number> {
    const { bytes } = this;
    return length === 4
      ? bytes.getUint32(offset, true)
      : length === 2
        ? bytes.getUint16(offset, true)
        : bytes.getUint8(offset);
  }

  async write(offset: number, _length: AccessLength, value: number): Promise<void> {
    const bar = this.#bars.get(offset);
    this.bytes.setUint32(offset, bar === undefined ? 0 : (value & bar.mask) | bar.type, true);
  }
}

describe('BAR sizing', () => {
  it('tells 32-bit, 64-bit, prefetchable and I/O BARs apart, and absent ones', async () => {
    const config = new FakeConfig()
      .bar(0, 0xffff0000, 0xc)
      .bar(1, 0xffffffff, 0)
      .bar(2, 0xfffff000, 0x0)
      .bar(3, 0xffffffe0, 0x1)
      .bar(4, 0xfff00000, 0x8);
    const bars = await sizeBars(config, BAR0);
    expect(
      bars.map(({ index, size, is64Bit, prefetchable, isIo }) => [
        index,
        Number(size),
        is64Bit,
        prefetchable,
        isIo,
      ]),
    ).toEqual([
      [0, 0x10000, true, true, false],
      [2, 0x1000, false, false, false],
      [3, 0x20, false, false, true],
      [4, 0x100000, false, true, false],
    ]);
  });

  it('sizes a 64-bit BAR of 8 GiB', async () => {
    const config = new FakeConfig().bar(0, 0, 0xc).bar(1, 0xfffffffe, 0);
    const [bar] = await sizeBars(config, BAR0);
    expect(bar?.size).toBe(8n << 30n);
  });

  it('puts the old values back', async () => {
    const config = new FakeConfig().bar(0, 0xffff0000, 0xc).bar(1, 0xffffffff, 0);
    const [bar] = await sizeBars(config, BAR0);
    await writeBar(config, bar!, 0x80_1234_0000n);
    await sizeBars(config, BAR0);
    expect(await config.read(BAR0, 4)).toBe(0x1234000c);
    expect(await config.read(BAR0 + 4, 4)).toBe(0x80);
  });
});

describe('the address space', () => {
  const bar = {
    index: 0,
    offset: BAR0,
    size: 0x4000n,
    is64Bit: true,
    prefetchable: true,
    isIo: false,
  };

  it('puts 64-bit prefetchable BARs above 4 GiB and others below, each aligned to its size', () => {
    const space = new AddressSpace();
    const high = space.take({ ...bar, size: 0x1000n });
    const aligned = space.take(bar);
    const low = space.take({ ...bar, is64Bit: false });
    expect(high >= 1n << 32n).toBe(true);
    expect(aligned).toBe(high + 0x4000n);
    expect(low < 1n << 32n).toBe(true);
    expect(low % 0x4000n).toBe(0n);
  });

  it('gives VF BARs room for all VFs', () => {
    const space = new AddressSpace();
    const first = space.take(bar, 63);
    expect(space.take(bar)).toBe(first + 63n * 0x4000n);
  });

  it('says so when a window is full', () => {
    const space = new AddressSpace();
    expect(() => space.take({ ...bar, is64Bit: false, size: 0x8000_0000n })).toThrow('do not fit');
  });
});

describe('the capability walk', () => {
  it('finds standard and extended capabilities', async () => {
    const config = new FakeConfig();
    config.bytes.setUint16(0x06, 0x10, true);
    config.bytes.setUint8(0x34, 0x40);
    config.bytes.setUint16(0x40, 0x5001, true);
    config.bytes.setUint16(0x50, 0x0010, true);
    config.bytes.setUint32(0x100, 0x1101_000e, true);
    config.bytes.setUint32(0x110, 0x0001_0010, true);
    const { standard, extended } = await findCapabilities(config);
    expect([...standard]).toEqual([
      [0x01, 0x40],
      [0x10, 0x50],
    ]);
    expect([...extended]).toEqual([
      [0x0e, 0x100],
      [0x10, 0x110],
    ]);
  });

  it('ends in spite of loops in both lists', async () => {
    const config = new FakeConfig();
    config.bytes.setUint16(0x06, 0x10, true);
    config.bytes.setUint8(0x34, 0x40);
    config.bytes.setUint16(0x40, 0x4001, true);
    config.bytes.setUint32(0x100, 0x1001_000e, true);
    const { standard, extended } = await findCapabilities(config);
    expect([standard.size, extended.size]).toEqual([1, 1]);
  });

  it('finds nothing where the function is absent', async () => {
    const config = new FakeConfig();
    for (let offset = 0; offset < 4096; offset += 4) {
      config.bytes.setUint32(offset, 0xffffffff, true);
    }
    const { standard, extended } = await findCapabilities(config);
    expect([standard.size, extended.size]).toEqual([0, 0]);
  });
});
