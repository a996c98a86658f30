// The licences of this program and of the packages that it runs with, as they are installed here: what npm and Debian ship has
// their code in it. Used by deb/build.mjs; run by `npm run prepare`:
//   licences.mjs FILE   writes them there
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../', import.meta.url));
const RULE = '-'.repeat(80);

/** The packages that it runs with, without what only builds them: name, and where it is installed. */
export function runtimePackages() {
  const command = ['ls', '--omit=dev', '--all', '--parseable'];
  const list = execFileSync('npm', command, { cwd: ROOT, encoding: 'utf8' });
  const paths = list.trim().split('\n').slice(1).sort();
  return paths.map((path) => ({ name: relative(join(ROOT, 'node_modules'), path), path }));
}

/** The text of all of them: `NAME VERSION: LICENCE`, then what the package says. */
export function licences() {
  const own = ['vfio-user-sriov: Apache-2.0', '', readFileSync(join(ROOT, 'LICENSE'), 'utf8')];
  return [...own, RULE, '', ...runtimePackages().flatMap(licenceOf)].join('\n');
}

function licenceOf({ name, path }) {
  const { version, license = 'see below' } = JSON.parse(
    readFileSync(join(path, 'package.json'), 'utf8'),
  );
  const texts = readdirSync(path)
    .filter((file) => /^(licen[cs]e|copying|notice)/i.test(file))
    .map((file) => readFileSync(join(path, file), 'utf8').trim());
  return [`${name} ${version}: ${license}`, '', ...texts, '', RULE, ''];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const file = process.argv[2];
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, licences());
}
