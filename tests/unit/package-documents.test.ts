// The documents that the package ships: what one of them links to is shipped with it.

import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const { files } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  files: string[];
};
/** npm ships these always. */
const SHIPPED = [...files, 'README.md', 'LICENSE'];

const isShipped = (path: string): boolean =>
  SHIPPED.some((each) => path === each || path.startsWith(`${each}/`));

/** What `document` links to within this project: a folder stands for its README. */
function linksOf(document: string): string[] {
  const text = readFileSync(join(ROOT, document), 'utf8');
  const targets = [...text.matchAll(/\]\(([^)#]+)[^)]*\)/g)].map((match) => match[1]!);
  return targets
    .filter((target) => !target.includes('://'))
    .map((target) => normalize(join(dirname(document), target)))
    .map((path) =>
      existsSync(join(ROOT, path)) && statSync(join(ROOT, path)).isDirectory()
        ? join(path, 'README.md')
        : path,
    );
}

it.each(SHIPPED.filter((path) => path.endsWith('.md')))(
  '%s links to nothing that is not shipped',
  (document) => {
    expect(linksOf(document).filter((path) => !isShipped(path))).toEqual([]);
  },
);
