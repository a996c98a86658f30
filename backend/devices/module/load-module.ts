// Loads a card of somebody's own from a TypeScript or JavaScript file, on any Node.js that runs this: esbuild makes one
// module of it and of what it imports, with types stripped. Node builtins stay imports; `vfio-user-sriov/device` is found
// without being installed. Stack traces name the lines of the file itself, by its source map.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { type BuildFailure, buildSync } from 'esbuild';
import { situationOf } from '../../../protocol/explained-error.ts';
import { UserError } from '../../../protocol/user-error.ts';
import { checkDeclaration } from '../kit/check-declaration.ts';
import type { DeviceDeclaration } from '../kit/declaration.ts';

/** What a card may import of this package; package.json exports the same. */
const PUBLIC = {
  'vfio-user-sriov/device': '../kit/declaration.js',
  'vfio-user-sriov/device/guest-memory': '../kit/guest-memory.js',
  'vfio-user-sriov/device/registers': '../../pci/registers.js',
} as const;

/** @throws UserError that names the file, and what is wrong with it */
export async function loadDeclaration(path: string): Promise<DeviceDeclaration<unknown>> {
  const file = resolve(path);
  const code = bundle(file, path);
  let exported: unknown;
  try {
    exported = ((await importCode(code, file)) as { default?: unknown }).default;
  } catch (error) {
    const text = error instanceof Error ? firstLines(error.stack ?? error.message) : String(error);
    throw new UserError(`--device=${path}: it throws while it is loaded: ${text}`, 'mend it');
  }
  const wrong = checkDeclaration(exported);
  if (wrong !== undefined) {
    throw new UserError(
      `--device=${path}: ${wrong.property} ${wrong.rule}`,
      `change ${wrong.property} in ${basename(file)}`,
    );
  }
  return exported as DeviceDeclaration<unknown>;
}

function bundle(file: string, path: string): string {
  try {
    const { outputFiles } = buildSync({
      entryPoints: [file],
      bundle: true,
      write: false,
      platform: 'node',
      format: 'esm',
      target: 'node20',
      sourcemap: 'inline',
      alias: Object.fromEntries(
        Object.entries(PUBLIC).map(([name, target]) => [
          name,
          fileURLToPath(new URL(target, import.meta.url)),
        ]),
      ),
      logLevel: 'silent',
    });
    return outputFiles[0]!.text;
  } catch (error) {
    const [first] = (error as Partial<BuildFailure>).errors ?? [];
    if (first === undefined) {
      throw error;
    }
    const { location, text } = first;
    const where = location === null ? '' : `line ${location.line}, column ${location.column + 1}: `;
    throw new UserError(
      `--device=${path}: ${where}${text}`,
      location === null ? 'name a TypeScript or JavaScript file' : 'mend it',
    );
  }
}

/** By way of a file, because a stack of a data URL would be the whole code. */
async function importCode(code: string, file: string): Promise<unknown> {
  process.setSourceMapsEnabled(true);
  const folder = mkdtempSync(join(tmpdir(), 'vfio-user-sriov-card-'));
  try {
    const built = join(folder, `${basename(file)}.mjs`);
    // Source maps name files relative to where the bundle would be: beside the card.
    writeFileSync(built, code);
    return await import(pathToFileURL(built).href);
  } catch (error) {
    throw error instanceof Error ? error : new Error(situationOf(error));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function firstLines(stack: string): string {
  return stack.split('\n').slice(0, 2).join(' ').replace(/\s+/g, ' ');
}
