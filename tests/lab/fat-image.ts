// A disk with a FAT16 file system on all of it, for firmware to boot from: a few files in its root, one behind the other.
// Microsoft, "FAT: General Overview of On-Disk Format", 1.03.
import { Buffer } from 'node:buffer';

const SECTOR = 512;
const SECTORS_PER_CLUSTER = 8;
const CLUSTER = SECTOR * SECTORS_PER_CLUSTER;
const RESERVED_SECTORS = 1;
const FATS = 2;
const ROOT_ENTRIES = 512;
const ENTRY = 32;
const ROOT_SECTORS = (ROOT_ENTRIES * ENTRY) / SECTOR;
const FIRST_CLUSTER = 2;
const NO_CLUSTER = 0;
const END_OF_CHAIN = 0xffff;
const FIXED_DISK = 0xf8;
const ARCHIVE = 0x20;
/** FAT16 has no fewer and no more clusters than these. */
const CLUSTERS = { least: 4085, most: 65_524 };

/** A file: its name has at most 8 capital letters or digits, a dot, and at most 3. */
export interface FatFile {
  readonly name: string;
  readonly content: Uint8Array;
}

/** The first bytes of a disk of `bytes`, up to the end of the last file; what follows is zeros. @throws RangeError where they do not fit */
export function fatImage(bytes: number, files: readonly FatFile[]): Uint8Array {
  const sectors = Math.floor(bytes / SECTOR);
  const fatSectors = Math.ceil(sectors / SECTORS_PER_CLUSTER / (SECTOR / 2)) + 1;
  const rootStart = RESERVED_SECTORS + FATS * fatSectors;
  const dataStart = rootStart + ROOT_SECTORS;
  const clusters = Math.floor((sectors - dataStart) / SECTORS_PER_CLUSTER);
  if (clusters < CLUSTERS.least || clusters > CLUSTERS.most) {
    throw new RangeError(`a disk of ${bytes} bytes has ${clusters} clusters, and is not FAT16`);
  }
  if (files.length > ROOT_ENTRIES) {
    throw new RangeError(`${files.length} files, and the root has ${ROOT_ENTRIES} entries`);
  }
  const placed = place(files);
  const used = placed.reduce((end, { count }) => end + count, FIRST_CLUSTER);
  if (used > clusters + FIRST_CLUSTER) {
    throw new RangeError(`${files.length} files do not fit in ${clusters} clusters`);
  }
  const image = Buffer.alloc(dataStart * SECTOR + (used - FIRST_CLUSTER) * CLUSTER);
  writeBootSector(image, sectors, fatSectors);
  for (let copy = 0; copy < FATS; copy++) {
    writeFat(image.subarray((RESERVED_SECTORS + copy * fatSectors) * SECTOR), placed);
  }
  for (const [index, { file, start }] of placed.entries()) {
    const entry = image.subarray(rootStart * SECTOR + index * ENTRY);
    writeEntry(entry, file, file.content.length === 0 ? NO_CLUSTER : start);
    image.set(file.content, dataStart * SECTOR + (start - FIRST_CLUSTER) * CLUSTER);
  }
  return image;
}

/** A file and its clusters. */
interface Placed {
  readonly file: FatFile;
  readonly start: number;
  readonly count: number;
}

function place(files: readonly FatFile[]): Placed[] {
  let start = FIRST_CLUSTER;
  return files.map((file) => {
    const count = Math.ceil(file.content.length / CLUSTER);
    const placed = { file, start, count };
    start += count;
    return placed;
  });
}

function writeBootSector(sector: Buffer, sectors: number, fatSectors: number): void {
  sector.set([0xeb, 0x3c, 0x90]);
  sector.write('LAB     ', 3, 'latin1');
  sector.writeUInt16LE(SECTOR, 11);
  sector.writeUInt8(SECTORS_PER_CLUSTER, 13);
  sector.writeUInt16LE(RESERVED_SECTORS, 14);
  sector.writeUInt8(FATS, 16);
  sector.writeUInt16LE(ROOT_ENTRIES, 17);
  const fitsIn16 = sectors <= 0xffff;
  sector.writeUInt16LE(fitsIn16 ? sectors : 0, 19);
  sector.writeUInt8(FIXED_DISK, 21);
  sector.writeUInt16LE(fatSectors, 22);
  sector.writeUInt32LE(fitsIn16 ? 0 : sectors, 32);
  sector.writeUInt8(0x80, 36);
  sector.writeUInt8(0x29, 38);
  sector.write('LAB        FAT16   ', 43, 'latin1');
  sector.set([0x55, 0xaa], 510);
}

function writeFat(fat: Buffer, placed: readonly Placed[]): void {
  fat.writeUInt16LE(0xff00 | FIXED_DISK, 0);
  fat.writeUInt16LE(END_OF_CHAIN, 2);
  for (const { start, count } of placed) {
    for (let cluster = start; cluster < start + count; cluster++) {
      const isLast = cluster === start + count - 1;
      fat.writeUInt16LE(isLast ? END_OF_CHAIN : cluster + 1, cluster * 2);
    }
  }
}

function writeEntry(entry: Buffer, { name, content }: FatFile, start: number): void {
  const [, base, extension = ''] = /^([A-Z0-9]{1,8})(?:\.([A-Z0-9]{1,3}))?$/.exec(name) ?? [];
  if (base === undefined) {
    throw new RangeError(`${name} is no name of 8 and 3 capital letters`);
  }
  entry.write(base.padEnd(8) + extension.padEnd(3), 0, 'latin1');
  entry.writeUInt8(ARCHIVE, 11);
  entry.writeUInt16LE(start, 26);
  entry.writeUInt32LE(content.length, 28);
}
