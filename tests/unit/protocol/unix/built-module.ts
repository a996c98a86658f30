// Finds a module of protocol/unix as the build left it, for tests that need a process of their own: Node 20 runs no TypeScript.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The file URL of dist/protocol/unix/<name>.js; throws where the project is not built. */
export function builtModule(name: string): string {
  const url = new URL(`../../../../dist/protocol/unix/${name}.js`, import.meta.url);
  if (!existsSync(fileURLToPath(url))) {
    throw new Error(`${fileURLToPath(url)} is not there: run npm run build first`);
  }
  return url.href;
}
