import { describe, expect, it } from 'vitest';
import {
  type ConfigOwner,
  ConfigSpace,
  patchOwner,
  TableOwner,
} from '../../../backend/pci/config-space.ts';
import { RegisterBlock } from '../../../backend/pci/register-block.ts';
import { reg16, reg32 } from '../../../backend/pci/registers.ts';

class Hardware implements ConfigOwner {
  readonly offset: number;
  readonly length: number;
  readonly bytes: Uint8Array;
  readonly log: string[] = [];

  constructor(offset: number, length: number) {
    this.offset = offset;
    this.length = length;
    this.bytes = Uint8Array.from({ length }, (_, index) => index + 1);
  }

  read(offset: number, length: 1 | 2 | 4): number {
    this.log.push(`r${length}@${offset}`);
    let value = 0;
    for (let lane = length - 1; lane >= 0; lane--) {
      value = value * 256 + this.bytes[offset + lane]!;
    }
    return value;
  }

  write(offset: number, length: 1 | 2 | 4, value: number): void {
    this.log.push(`w${length}@${offset}=${value.toString(16)}`);
    for (let lane = 0; lane < length; lane++) {
      this.bytes[offset + lane] = value >>> (8 * lane);
    }
  }
}

function readAll(space: ConfigSpace, offset: number, length: number): number[] {
  const into = new Uint8Array(length);
  space.read(offset, length, into);
  return [...into];
}

describe('an access', () => {
  it('is split into naturally aligned pieces', () => {
    const hardware = new Hardware(0, 16);
    const space = new ConfigSpace(256, [hardware]);
    expect(readAll(space, 1, 10)).toEqual([2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect(hardware.log).toEqual(['r1@1', 'r2@2', 'r4@4', 'r2@8', 'r1@10']);
  });

  it('never crosses from one owner into the next', () => {
    const first = new Hardware(0, 6);
    const second = new Hardware(6, 10);
    const space = new ConfigSpace(256, [first, second]);
    space.write(4, Uint8Array.of(0xa, 0xb, 0xc, 0xd, 0xe));
    expect(first.log).toEqual(['w2@4=b0a']);
    expect(second.log).toEqual(['w2@0=d0c', 'w1@2=e']);
  });

  it('is split to single bytes where an owner ends at an odd offset', () => {
    const first = new Hardware(0, 3);
    const second = new Hardware(3, 1);
    const space = new ConfigSpace(256, [first, second]);
    space.write(2, Uint8Array.of(0xa, 0xb));
    expect(first.log).toEqual(['w1@2=a']);
    expect(second.log).toEqual(['w1@0=b']);
  });

  it('of bytes that nobody owns reads 0 and writes nothing', () => {
    const hardware = new Hardware(0x40, 4);
    const space = new ConfigSpace(256, [hardware]);
    space.write(0x3e, Uint8Array.of(9, 9, 9, 9, 9, 9, 9, 9));
    expect(readAll(space, 0x3e, 8)).toEqual([0, 0, 9, 9, 9, 9, 0, 0]);
    expect(hardware.log[0]).toBe('w4@0=9090909');
  });

  it('may cover all of config space at once', () => {
    const space = new ConfigSpace(4096, [new Hardware(0, 4), new Hardware(0xffc, 4)]);
    const bytes = readAll(space, 0, 4096);
    expect([bytes.slice(0, 5), bytes.slice(-5)]).toEqual([
      [1, 2, 3, 4, 0],
      [0, 1, 2, 3, 4],
    ]);
  });

  it('past the end throws', () => {
    const space = new ConfigSpace(256, []);
    expect(() => readAll(space, 0xfe, 4)).toThrow('4 bytes at 0xfe lie outside');
    expect(() => space.write(256, Uint8Array.of(1))).toThrow('1 bytes at 0x100 lie outside');
  });
});

describe('owners', () => {
  it('that overlap are refused, both named', () => {
    const owners = [new Hardware(0x40, 8), new Hardware(0x44, 8)];
    expect(() => new ConfigSpace(256, owners)).toThrow(
      'config range 0x44..0x4b overlaps config range 0x40..0x47',
    );
  });

  it('that leave config space are refused', () => {
    expect(() => new ConfigSpace(256, [new Hardware(0xfe, 4)])).toThrow('0xfe..0x101 lies outside');
  });

  it('of a register table tell their changes', () => {
    const table = { control: reg16(0, 'rw'), mode: reg16(2, 'ro'), address: reg32(4, 'rw') };
    const changes: unknown[] = [];
    const block = RegisterBlock.of(table, { length: 8 });
    const space = new ConfigSpace(256, [new TableOwner(0x80, block, (some) => changes.push(some))]);
    space.write(0x80, Uint8Array.of(1, 0, 0xff, 0xff, 2, 0, 0, 0));
    space.write(0x82, Uint8Array.of(5, 5));
    expect(changes).toEqual([
      [{ register: 'control', before: 0, after: 1 }],
      [{ register: 'address', before: 0, after: 2 }],
    ]);
    expect(readAll(space, 0x80, 8)).toEqual([1, 0, 0, 0, 2, 0, 0, 0]);
  });
});

describe('patches over hardware', () => {
  function patched() {
    const hardware = new Hardware(0x40, 8);
    const owner = patchOwner(hardware, [
      { offset: 1, length: 1, mask: 0xff, value: 0x80 },
      { offset: 4, length: 4, mask: 0xfff0_0000, value: 0x1230_0000 },
    ]);
    return { hardware, space: new ConfigSpace(256, [owner]) };
  }

  it('show their bits and leave hardware’s others', () => {
    const { space } = patched();
    expect(readAll(space, 0x40, 8)).toEqual([1, 0x80, 3, 4, 5, 6, 0x37, 0x12]);
  });

  it('keep hardware’s own bits in a write that covers them', () => {
    const { hardware, space } = patched();
    space.write(0x44, Uint8Array.of(0xff, 0xff, 0xff, 0xff));
    expect([...hardware.bytes.slice(4)]).toEqual([0xff, 0xff, 0x0f, 0x08]);
  });

  it('do not ask hardware about bytes that are theirs alone', () => {
    const { hardware, space } = patched();
    space.write(0x41, Uint8Array.of(0));
    expect(readAll(space, 0x41, 1)).toEqual([0x80]);
    expect(hardware.log).toEqual([]);
  });

  it('outside their owner are refused', () => {
    const patch = { offset: 6, length: 4, mask: 0, value: 0 } as const;
    expect(() => patchOwner(new Hardware(0, 8), [patch])).toThrow('lies outside config range');
  });
});
