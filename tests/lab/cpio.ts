// Writes archives in cpio's "newc" format, as the Linux kernel unpacks them into its first root file system
// (Linux Documentation/driver-api/early-userspace/buffer-format.rst). Pure.

/** One thing in the archive; paths are absolute. Folders above it need not be given. */
export type ArchiveEntry =
  | { readonly path: string; readonly content: string | Uint8Array; readonly mode?: number }
  | { readonly path: string; readonly target: string }
  | { readonly path: string; readonly device: { readonly major: number; readonly minor: number } }
  | { readonly path: string; readonly folder: true };

const TYPE = {
  folder: 0o040000,
  characterDevice: 0o020000,
  file: 0o100000,
  link: 0o120000,
} as const;
const EMPTY = new Uint8Array(0);

/** The bytes of an archive with `entries`; a path that is given twice keeps its last content. */
export function cpioArchive(entries: readonly ArchiveEntry[]): Buffer {
  const byPath = new Map<string, ArchiveEntry>();
  for (const entry of entries) {
    for (const path of foldersAbove(entry.path)) {
      if (!byPath.has(path)) {
        byPath.set(path, { path, folder: true });
      }
    }
    byPath.set(entry.path, entry);
  }
  let inode = 1;
  const chunks = [...byPath.values()].flatMap((entry) => record(entry, inode++));
  return Buffer.concat([...chunks, ...header('TRAILER!!!', { mode: 0, inode: 0, size: 0 })]);
}

function foldersAbove(path: string): string[] {
  const parts = path.split('/').slice(1, -1);
  return parts.map((_, index) => `/${parts.slice(0, index + 1).join('/')}`);
}

function record(entry: ArchiveEntry, inode: number): Uint8Array[] {
  const name = entry.path.slice(1);
  if ('folder' in entry) {
    return header(name, { mode: TYPE.folder | 0o755, inode, size: 0 });
  }
  if ('device' in entry) {
    const mode = TYPE.characterDevice | 0o600;
    return header(name, { mode, inode, size: 0, device: entry.device });
  }
  if ('target' in entry) {
    return data(name, TYPE.link | 0o777, inode, Buffer.from(entry.target));
  }
  const content = typeof entry.content === 'string' ? Buffer.from(entry.content) : entry.content;
  return data(name, TYPE.file | (entry.mode ?? 0o644), inode, content);
}

function data(name: string, mode: number, inode: number, bytes: Uint8Array): Uint8Array[] {
  return [...header(name, { mode, inode, size: bytes.length }), bytes, padding(bytes.length)];
}

interface Fields {
  readonly mode: number;
  readonly inode: number;
  readonly size: number;
  readonly device?: { readonly major: number; readonly minor: number };
}

function header(name: string, { mode, inode, size, device }: Fields): Uint8Array[] {
  const nameBytes = Buffer.from(`${name}\0`);
  const numbers = [
    inode,
    mode,
    0, // owner
    0, // group
    1, // links
    0, // time of last change
    size,
    0, // device that holds the file: major, minor
    0,
    device?.major ?? 0,
    device?.minor ?? 0,
    nameBytes.length,
    0, // checksum, unused in this format
  ];
  const fixed = `070701${numbers.map((it) => it.toString(16).padStart(8, '0')).join('')}`;
  return [Buffer.from(fixed), nameBytes, padding(fixed.length + nameBytes.length)];
}

function padding(length: number): Uint8Array {
  return length % 4 === 0 ? EMPTY : new Uint8Array(4 - (length % 4));
}
