// Builds the C program that tests and demo run inside guests (guest/pci-function.c), statically, into the lab's cache.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cachedPart, cacheFolder, withLock } from './cache.ts';
import { ensureMachinePackages } from './machine.ts';
import { runProgram } from './run-program.ts';

const NAME = 'pci-function';
/** The source stays where it is when TypeScript is compiled to dist/. */
const SOURCE = fileURLToPath(new URL(`guest/${NAME}.c`, import.meta.url)).replace('/dist/', '/');

/** The path of the executable. Throws what the compiler says. */
export async function guestProgram(): Promise<string> {
  const hash = createHash('sha256').update(await readFile(SOURCE));
  const part = `${NAME}-${hash.digest('hex').slice(0, 12)}`;
  const folder = cacheFolder();
  await withLock(folder, () => cachedPart(folder, part, build));
  return join(folder, part, NAME);
}

async function build(folder: string): Promise<void> {
  await ensureMachinePackages(['gcc', 'libc6-dev']);
  const args = ['-O2', '-Wall', '-static', '-o', join(folder, NAME), SOURCE];
  const result = await runProgram('gcc', args);
  if (result.status !== 0) {
    throw new Error(`gcc ${SOURCE}: ${result.stderr}`);
  }
}
