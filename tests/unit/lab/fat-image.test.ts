import { Buffer } from 'node:buffer';
import { describe, expect, it } from 'vitest';
import { type FatFile, fatImage } from '../../lab/fat-image.ts';

const MIB = 1 << 20;
const DISK = 64 * MIB;
const CLUSTER = 4096;

/** What a reader finds on a disk, by its boot sector alone. Microsoft, "FAT: General Overview of On-Disk Format". */
class Disk {
  readonly #image: Buffer;
  readonly sectorBytes: number;
  readonly sectors: number;
  readonly clusters: number;
  readonly #fatBytes: number;
  readonly #fats: number;
  readonly #root: number;
  readonly #rootEntries: number;
  readonly #data: number;
  readonly #clusterBytes: number;

  constructor(bytes: Uint8Array) {
    const image = Buffer.from(bytes);
    this.#image = image;
    this.sectorBytes = image.readUInt16LE(11);
    this.#clusterBytes = image.readUInt8(13) * this.sectorBytes;
    this.#fats = image.readUInt16LE(14) * this.sectorBytes;
    this.#rootEntries = image.readUInt16LE(17);
    const sectors16 = image.readUInt16LE(19);
    this.sectors = sectors16 === 0 ? image.readUInt32LE(32) : sectors16;
    this.#fatBytes = image.readUInt16LE(22) * this.sectorBytes;
    this.#root = this.#fats + image.readUInt8(16) * this.#fatBytes;
    this.#data = this.#root + this.#rootEntries * 32;
    const ofData = this.sectors * this.sectorBytes - this.#data;
    this.clusters = Math.floor(ofData / this.#clusterBytes);
  }

  get copiesOfFat(): Buffer[] {
    return [0, 1].map((copy) => {
      const start = this.#fats + copy * this.#fatBytes;
      return this.#image.subarray(start, start + this.#fatBytes);
    });
  }

  read(name: string): Buffer | undefined {
    for (let index = 0; index < this.#rootEntries; index++) {
      const entry = this.#image.subarray(this.#root + index * 32);
      if (entry[0] === 0) {
        return undefined;
      }
      if (entry.toString('latin1', 0, 11) === name) {
        const chain = this.#chain(entry.readUInt16LE(26));
        return Buffer.concat(chain).subarray(0, entry.readUInt32LE(28));
      }
    }
    return undefined;
  }

  /** What is past the end of the image is zeros. */
  #chain(start: number): Buffer[] {
    const found: Buffer[] = [];
    for (let at = start; at >= 2 && at < 0xfff8; at = this.copiesOfFat[0]!.readUInt16LE(at * 2)) {
      const piece = Buffer.alloc(this.#clusterBytes);
      const from = this.#data + (at - 2) * this.#clusterBytes;
      this.#image.copy(piece, 0, from, from + this.#clusterBytes);
      found.push(piece);
    }
    return found;
  }
}

function file(name: string, bytes: number): FatFile {
  return { name, content: Uint8Array.from({ length: bytes }, (_, at) => (at + bytes) % 251) };
}

describe('a disk of FAT16', () => {
  it('has its files, of any length, each as it was', () => {
    const files = [
      file('BOOTX64.EFI', 3 * CLUSTER + 1),
      file('WHOLE', 2 * CLUSTER),
      file('EMPTY.TXT', 0),
      file('ONE.B', 1),
    ];
    const disk = new Disk(fatImage(DISK, files));
    const names = ['BOOTX64 EFI', 'WHOLE      ', 'EMPTY   TXT', 'ONE     B  '];
    expect(names.map((name) => disk.read(name))).toEqual(
      files.map(({ content }) => Buffer.from(content)),
    );
    expect(disk.read('OTHER      ')).toBeUndefined();
  });

  it('says how large it is, and is known for one', () => {
    const image = fatImage(DISK, [file('A', 1)]);
    const disk = new Disk(image);
    expect([disk.sectorBytes, disk.sectors]).toEqual([512, DISK / 512]);
    expect(disk.clusters).toBeGreaterThanOrEqual(4085);
    expect(disk.clusters).toBeLessThan(65_525);
    expect([...image.subarray(510, 512)]).toEqual([0x55, 0xaa]);
    expect(Buffer.from(image).toString('latin1', 54, 62)).toBe('FAT16   ');
  });

  it('of fewer than 65,536 sectors has their number in the field of 16 bits', () => {
    const small = Buffer.from(fatImage(17 * MIB, []));
    expect([small.readUInt16LE(19), small.readUInt32LE(32)]).toEqual([(17 * MIB) / 512, 0]);
  });

  it('has two copies of its table, as long as its clusters need it, which begins with the kind of disk', () => {
    const disk = new Disk(fatImage(DISK, [file('A', 5 * CLUSTER)]));
    const [first, second] = disk.copiesOfFat;
    expect(Buffer.compare(first!, second!)).toBe(0);
    expect(first!.length).toBeGreaterThanOrEqual((disk.clusters + 2) * 2);
    expect([...new Uint16Array(first!.buffer, first!.byteOffset, 8)]).toEqual([
      0xfff8, 0xffff, 3, 4, 5, 6, 0xffff, 0,
    ]);
  });

  it('gives an empty file no cluster', () => {
    const disk = new Disk(fatImage(DISK, [file('EMPTY', 0)]));
    expect(disk.copiesOfFat[0]!.readUInt16LE(4)).toBe(0);
  });
});

it.each<[string, number, FatFile[], RegExp]>([
  ['disk has too few clusters', 8 * MIB, [], /8388608 bytes has \d+ clusters, and is not FAT16/],
  ['disk has too many', 300 * MIB, [], /is not FAT16/],
  ['files are larger than the disk', 17 * MIB, [file('A', 17 * MIB)], /1 files do not fit in/],
  [
    'files are more than the root has entries',
    DISK,
    Array.from({ length: 513 }, (_, index) => file(`F${index}`, 0)),
    /513 files, and the root has 512 entries/,
  ],
  ['name has small letters', DISK, [file('boot.efi', 1)], /boot.efi is no name of 8 and 3/],
  ['name is too long', DISK, [file('NINELETTE', 1)], /NINELETTE is no name/],
])('no image is made where the %s', (_, bytes, files, message) => {
  expect(() => fatImage(bytes, files)).toThrow(message);
});
