// Builds the C program that tests and demo run inside guests (guest/pci-function.c), statically, into the lab's cache.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cachedPart, cacheFolder, withLock } from './cache.ts';
import { COMPILERS } from './compiler.ts';
import type { Processor } from './lab.ts';

const NAME = 'pci-function';
/** The source stays where it is when TypeScript is compiled to dist/. */
const SOURCE = fileURLToPath(new URL(`guest/${NAME}.c`, import.meta.url)).replace('/dist/', '/');

/** The path of the executable. Throws what the compiler says. */
export async function guestProgram(processor: Processor = 'x86_64'): Promise<string> {
  const { name, compile, prefix } = COMPILERS[processor];
  const hash = createHash('sha256').update(await readFile(SOURCE));
  const part = `${NAME}-${name}-${hash.digest('hex').slice(0, 12)}`;
  const folder = cacheFolder();
  // Fetched under the same lock, which is not taken twice.
  await prefix();
  await withLock(folder, () =>
    cachedPart(folder, part, (target) => compile(SOURCE, join(target, NAME))),
  );
  return join(folder, part, NAME);
}
