// Removes from dist/ what was made of sources that are no longer there, so that nothing runs or ships it. A step of
// `npm run build`; dist/ is not emptied before, because a program may be running from it.
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));
const MADE_OF_TYPESCRIPT = /\.(js|js\.map|d\.ts)$/;

for (const path of readdirSync(`${root}dist`, { recursive: true })) {
  const source = path.replace(MADE_OF_TYPESCRIPT, '.ts');
  if (source !== path && !path.startsWith('pieces/') && !existsSync(`${root}${source}`)) {
    rmSync(`${root}dist/${path}`);
  }
}
