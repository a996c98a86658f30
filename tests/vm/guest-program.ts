// Builds the C program that tests run inside guests (guest/pci-function.c), once per process, statically.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ensureMachinePackages } from '../lab/machine.ts';
import { runProgram } from '../lab/run-program.ts';

/** The source stays where it is when TypeScript is compiled to dist/. */
const SOURCE = fileURLToPath(new URL('guest/pci-function.c', import.meta.url)).replace(
  '/dist/',
  '/',
);

let built: Promise<string> | undefined;

/** The path of the executable, which is removed when this process ends. Throws what the compiler says. */
export function guestProgram(): Promise<string> {
  built ??= build();
  return built;
}

async function build(): Promise<string> {
  await ensureMachinePackages(['gcc', 'libc6-dev']);
  const folder = mkdtempSync(join(tmpdir(), 'guest-program-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  const output = join(folder, 'pci-function');
  const result = await runProgram('gcc', ['-O2', '-Wall', '-static', '-o', output, SOURCE]);
  if (result.status !== 0) throw new Error(`gcc ${SOURCE}: ${result.stderr}`);
  return output;
}
