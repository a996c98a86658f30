// The parts that the lab fetches: each a folder in the cache, made from packages of Debian's the first time it is wanted.
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { cachedPart, cacheFolder, withLock } from './cache.ts';
import { DebianArchive, type DebianRelease, TRIXIE } from './debian-archive.ts';
import { step } from './progress.ts';

/** A part, and how a folder becomes it. */
export interface LabPart {
  /** Its folder's name; a number in it changes with the recipe. */
  readonly name: string;
  /** What a person is told that is being fetched. */
  readonly what: string;
  /** Default: TRIXIE. */
  readonly from?: DebianRelease;
  build(archive: DebianArchive, target: string): Promise<void>;
}

/** The folder of a part, fetched if need be. Throws LabError. */
export async function partFolder(part: LabPart): Promise<string> {
  await ensureParts([part]);
  return folderOf(part);
}

/** Where a part is, or will be. */
export function folderOf(part: LabPart): string {
  return join(cacheFolder(), part.name);
}

/** Fetches those of `parts` that are not there. Throws LabError. */
export async function ensureParts(parts: readonly LabPart[]): Promise<void> {
  const isMissing = (part: LabPart) => !existsSync(folderOf(part));
  if (!parts.some(isMissing)) {
    return;
  }
  const folder = cacheFolder();
  await withLock(folder, async () => {
    // Another run may have fetched them while this one waited for the lock.
    const missing = parts.filter(isMissing);
    if (missing.length === 0) {
      return;
    }
    for (const from of new Set(missing.map(releaseOf))) {
      const parts = missing.filter((part) => releaseOf(part) === from);
      await fetchParts(folder, from, parts);
    }
  });
}

function releaseOf({ from = TRIXIE }: LabPart): DebianRelease {
  return from;
}

/** Into the cache `folder`. */
async function fetchParts(folder: string, from: DebianRelease, parts: readonly LabPart[]) {
  const aptFolder = join(folder, '.apt');
  await rm(aptFolder, { recursive: true, force: true });
  try {
    const archive = await DebianArchive.open(aptFolder, from);
    for (const { name, what, build } of parts) {
      await step(`fetching ${what}`, () =>
        cachedPart(folder, name, (target) => build(archive, target)),
      );
    }
  } finally {
    await rm(aptFolder, { recursive: true, force: true });
  }
}
