// Loads a card of somebody's own from a TypeScript or JavaScript file, on any Node.js that runs this: esbuild makes one
// module of it and of what it imports, with types stripped. Node builtins stay imports; `vfio-user-sriov/device` is found
// without being installed. Stack traces name the lines of the file itself, by its source map.

import { Console } from 'node:console';
import { randomUUID } from 'node:crypto';
import { mkdirSync, rmSync, type Stats, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { type BuildFailure, buildSync, type Message } from 'esbuild';
import { failedCall, UserError } from '../../../protocol/user-error.ts';
import { checkDeclaration, type Misdeclaration } from '../kit/check-declaration.ts';
import type { DeviceDeclaration } from '../kit/declaration.ts';
import { stackOf, wordsOf } from '../kit/model-guard.ts';
import { settled } from '../kit/settle-declaration.ts';

/** What a card may import of this package; package.json exports the same. */
const PUBLIC = {
  'vfio-user-sriov/device': '../kit/declaration.js',
  'vfio-user-sriov/device/guest-memory': '../kit/guest-memory.js',
  'vfio-user-sriov/device/registers': '../../pci/registers.js',
} as const;

/** What the name of the folder begins with that a module is made in. */
export const BUILT_IN = 'vfio-user-sriov-card-';

/** Stands at the head of the module: what CommonJS takes for granted, and where the card is. */
const BANNER = `import { createRequire as __createRequire } from 'node:module';`;
/** Where this program is. */
const PROGRAM = ['backend', 'pieces', 'protocol'].map((folder) =>
  fileURLToPath(new URL(`../../../${folder}/`, import.meta.url)),
);

/** @throws UserError that names the file, and what is wrong with it */
export async function loadDeclaration(path: string): Promise<DeviceDeclaration<unknown>> {
  const file = resolve(path);
  let exported: unknown;
  let wrong: Misdeclaration | undefined;
  try {
    exported = settled((await moduleOf(file, path)).default);
    wrong = checkDeclaration(exported);
  } catch (error) {
    throw error instanceof UserError ? error : thrown(path, 'while it is loaded', error);
  }
  if (wrong !== undefined) {
    throw new UserError(
      `--device=${path}: ${wrong.property} ${wrong.rule}`,
      `change ${wrong.property} in ${basename(file)}`,
    );
  }
  return exported as DeviceDeclaration<unknown>;
}

/** What the card's own code threw, as its author's error; `when`: "while it is loaded". */
export function thrown(path: string, when: string, error: unknown): UserError {
  const where = placeIn(stackOf(error));
  return new UserError(`--device=${path}: it throws ${when}: ${wordsOf(error)}${where}`, 'mend it');
}

/** Where a stack is in the card's own code, as it ends a sentence; nothing where it is not. */
export function placeIn(stack: string): string {
  const frames = stack.matchAll(/^ *at (?:.*\()?(?:file:\/\/)?(.+:\d+:\d+)\)?$/gm);
  const isOurs = (each: string): boolean => PROGRAM.some((folder) => each.startsWith(folder));
  const place = Array.from(frames, ([, frame = '']) => frame).find(
    (each) => !each.startsWith('node:') && !isOurs(each),
  );
  return place === undefined ? '' : ` (at ${basename(place)})`;
}

/** It is made a module beside nothing else, so that its stacks name the card's lines. */
async function moduleOf(file: string, path: string): Promise<{ readonly default?: unknown }> {
  process.setSourceMapsEnabled(true);
  // Standard output is for whoever started this program, and waits for its ready line.
  globalThis.console = new Console(process.stderr);
  const folder = join(tmpdir(), `${BUILT_IN}${randomUUID()}`);
  const built = join(folder, `${basename(file)}.mjs`);
  const source = bundle(file, path, built);
  mkdirSync(folder, { mode: 0o700 });
  try {
    writeFileSync(built, `${removalOf(folder)}${source}`);
    return await import(pathToFileURL(built).href);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What comes first in a module, on the line of what follows: a card that never comes to its end leaves no file either. */
function removalOf(folder: string): string {
  const what = JSON.stringify(folder);
  return `import { rmSync as __rmSync } from 'node:fs'; __rmSync(${what}, { recursive: true, force: true }); `;
}

/** `built`: where it will be, since a source map names files relative to that. @throws UserError */
export function bundle(file: string, path: string, built: string): string {
  insistOnFile(file, path);
  try {
    const { outputFiles } = buildSync({
      entryPoints: [file],
      bundle: true,
      write: false,
      outfile: built,
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
      banner: { js: `${BANNER}\nconst require = __createRequire(${JSON.stringify(file)});` },
      // A card finds what lies beside it.
      define: {
        'import.meta.url': JSON.stringify(pathToFileURL(file).href),
        'import.meta.filename': JSON.stringify(file),
        'import.meta.dirname': JSON.stringify(dirname(file)),
        __filename: JSON.stringify(file),
        __dirname: JSON.stringify(dirname(file)),
      },
      logLevel: 'silent',
    });
    return outputFiles[0]!.text;
  } catch (error) {
    const [first] = (error as Partial<BuildFailure>).errors ?? [];
    if (first === undefined) {
      throw error;
    }
    throw refused(first, file, path);
  }
}

/** A pipe may never come to its end, and esbuild cannot be ended while it waits for one. What is not there esbuild looks for by other names. */
function insistOnFile(file: string, path: string): void {
  const fix = 'name a TypeScript or JavaScript file';
  let status: Stats | undefined;
  try {
    status = statSync(file, { throwIfNoEntry: false });
  } catch (error) {
    throw failedCall(error, fix, `--device=${path}`);
  }
  if (status !== undefined && !status.isFile() && !status.isDirectory()) {
    throw new UserError(`--device=${path}: it is not a regular file`, fix);
  }
}

/** The place is in the card's file, or in another that it imports. */
function refused({ location, text }: Message, file: string, path: string): UserError {
  if (location === null) {
    return new UserError(`--device=${path}: ${text}`, 'name a TypeScript or JavaScript file');
  }
  const other = resolve(location.file) === file ? '' : `${location.file}, `;
  const where = `${other}line ${location.line}, column ${location.column + 1}`;
  return new UserError(`--device=${path}: ${where}: ${text}`, 'mend it');
}
