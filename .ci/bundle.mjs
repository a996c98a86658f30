// Puts programs of dist/ into as few files as each needs, in place: Node takes longer to find and read 300 small files than
// to run them, above all over a network file system. Everything else in dist/ stays as tsc made it, and so do all paths:
// code that asks for `import.meta.url` is told where tsc had put it. Run it right after tsc:
//   bundle.mjs         the product's programs: the last step of `npm run build`; dist/pieces.json names what it made
//   bundle.mjs --lab   what the tests start inside virtual hosts
import { readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

/** What is started as a process or as a thread. None shares a piece with another. */
const PROGRAMS = [
  'cli',
  'backend/thread/device-worker',
  'backend/devices/module/examiner',
  'backend/devices/vfio/dma/dma-mapper-child',
  'backend/devices/vfio/vfs/numvfs-writer-child',
];
/** What is imported on demand stays apart. */
const IN_PIECES = { splitting: true, chunkNames: 'pieces/[name]-[hash]' };
/** A program that runs may still have to load its pieces when the next build replaces them. */
const OLD_PIECES_STAY_MILLISECONDS = 24 * 60 * 60 * 1000;

const root = fileURLToPath(new URL('../', import.meta.url));
const dist = `${root}dist/`;

if (process.argv[2] === '--lab') {
  const scenarios = 'tests/vm/vfio/scenarios';
  const names = readdirSync(`${dist}${scenarios}`).filter((name) => name.endsWith('.js'));
  const paths = names.map((name) => `${scenarios}/${name.slice(0, -'.js'.length)}`);
  await bundle([...paths, 'tests/nested/inside/main'], {});
} else {
  const made = [];
  for (const path of PROGRAMS) {
    made.push(...(await bundle([path], IN_PIECES)));
  }
  const files = new Set(made);
  writeFileSync(`${dist}pieces.json`, JSON.stringify([...files]));
  removeOldPieces(files);
}

/** Bundles each dist/`path`.js in its place; gives the files it made, as paths from the root. */
async function bundle(paths, options) {
  const { metafile } = await build({
    ...options,
    absWorkingDir: root,
    entryPoints: paths.map((path) => ({ in: `dist/${path}.js`, out: path })),
    outdir: 'dist',
    allowOverwrite: true,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    sourcemap: true,
    // Each has a binary beside it.
    external: ['koffi', 'esbuild'],
    // Packages that are CommonJS ask for Node's own modules by `require`. (An `import()` of one gives `default` alone.)
    banner: {
      js: "import { createRequire as createRequireOfProgram } from 'node:module'; const require = createRequireOfProgram(import.meta.url);",
    },
    plugins: [{ name: 'paths-stay', setup: keepPaths }],
    logLevel: 'warning',
    metafile: true,
  });
  return Object.keys(metafile.outputs);
}

function keepPaths({ onLoad }) {
  onLoad({ filter: /\/dist\/.*\.js$/ }, async ({ path }) => {
    const code = await readFile(path, 'utf8');
    const place = JSON.stringify(path.slice(dist.length));
    return {
      // In quotes it is a name that the program speaks of.
      contents: code.replaceAll(
        /(?<!['"])import\.meta\.url/g,
        `new URL(${place}, import.meta.url.slice(0, import.meta.url.lastIndexOf("/dist/") + 6)).href`,
      ),
    };
  });
}

function removeOldPieces(made) {
  const oldest = Date.now() - OLD_PIECES_STAY_MILLISECONDS;
  for (const name of readdirSync(`${dist}pieces`)) {
    const path = `${dist}pieces/${name}`;
    if (!made.has(`dist/pieces/${name}`) && statSync(path).mtimeMs < oldest) {
      rmSync(path);
    }
  }
}
