// The package as npm makes it: what it exports, ships and starts is there.
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const { exports, bin, version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  exports: Record<string, string>;
  bin: Record<string, string>;
  version: string;
};

let shipped: Set<string>;

beforeAll(() => {
  const list = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  const [{ files }] = JSON.parse(list) as [{ files: { path: string }[] }];
  shipped = new Set(files.map(({ path }) => path));
}, 60_000);

const linksIn = (file: string): string[] =>
  [...readFileSync(join(ROOT, file), 'utf8').matchAll(/\]\(([^)#:]+)[^):]*\)/g)].map((match) =>
    join(dirname(file), match[1]!),
  );

describe('the package', () => {
  it('ships each file that it exports, and its program', () => {
    const targets = [...Object.values(exports), ...Object.values(bin)];
    expect(targets.filter((path) => !shipped.has(path.replace('./', '')))).toEqual([]);
  });

  it('ships what its documents link to', () => {
    const documents = [...shipped].filter((path) => path.endsWith('.md'));
    expect(documents).toContain('README.md');
    const missing = documents
      .flatMap((path) => linksIn(path))
      .filter(
        (path) => !shipped.has(path) && ![...shipped].some((it) => it.startsWith(`${path}/`)),
      );
    expect(missing).toEqual([]);
  });

  it('ships no map without its source, and neither tests nor examples', () => {
    const maps = [...shipped].filter((path) => path.endsWith('.map'));
    const bare = maps.filter(
      (path) => JSON.parse(readFileSync(join(ROOT, path), 'utf8')).sourcesContent === undefined,
    );
    expect(bare).toEqual([]);
    expect([...shipped].filter((path) => /^dist\/(tests|examples)\//.test(path))).toEqual([]);
  });

  it.each(['README.md', 'vmm-glue/client/README.md'])('exports what %s imports of it', (file) => {
    const text = readFileSync(join(ROOT, file), 'utf8');
    const imports = [...text.matchAll(/from 'vfio-user-sriov\/([^']+)'/g)].map(
      ([, it]) => `./${it}`,
    );
    expect(imports.filter((path) => exports[path] === undefined)).toEqual([]);
  });
});

describe('the program on the PATH', () => {
  const run = (folder: string) =>
    spawnSync(process.execPath, [join(folder, bin['vfio-user-sriov']!), '--version'], {
      encoding: 'utf8',
      timeout: 10_000,
    });

  it('starts what was built', () => {
    expect(run(ROOT)).toMatchObject({ status: 0, stdout: `${version}\n` });
  });

  it.each([
    ['nothing was built', []],
    ['nothing was installed', ['dist']],
  ])('says in one line what to do where %s', (_what, there) => {
    const folder = mkdtempSync(join(tmpdir(), 'package-'));
    try {
      cpSync(join(ROOT, 'bin'), join(folder, 'bin'), { recursive: true });
      cpSync(join(ROOT, 'package.json'), join(folder, 'package.json'));
      for (const name of there) {
        expect(existsSync(join(ROOT, name))).toBe(true);
        symlinkSync(join(ROOT, name), join(folder, name));
      }
      const { status, stderr } = run(folder);
      expect(status).toBe(1);
      expect(stderr).toMatch(/^vfio-user-sriov: [^\n]*npm ci && npm run build\n$/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
