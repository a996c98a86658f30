// `npm run package:deb [-- FOLDER]`: makes the Debian package of this build, with all that it needs but Node.js, in FOLDER
// (default: dist-deb). Needs dpkg-deb and a build; no root.
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { licences, runtimePackages } from '../licences.mjs';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const NAME = 'vfio-user-sriov';
const LIB = `usr/lib/${NAME}`;
const DOC = `usr/share/doc/${NAME}`;
const { version, description, exports } = JSON.parse(
  readFileSync(join(ROOT, 'package.json'), 'utf8'),
);
const [into = join(ROOT, 'dist-deb'), ...others] = process.argv.slice(2);
if (into.startsWith('-') || others.length > 0) {
  const isHelp = into === '--help' || into === '-h';
  (isHelp ? process.stdout : process.stderr).write(
    'usage: npm run package:deb [-- FOLDER]\nMakes the Debian package, in FOLDER (default: dist-deb).\n',
  );
  process.exit(isHelp ? 0 : 2);
}

/** The binaries of koffi and esbuild that are installed here are those of this machine. */
const ARCHITECTURE = run('dpkg', '--print-architecture').trim();

/** Paths of no use to who runs the program. */
const FOR_DEVELOPERS =
  /\.(map|ts|md|flow|c|cc|cpp|h|hh|hpp|S|asm|cmake)$|(^|\/)(tests?|vendor|musl_x64|\.github)(\/|$)/;

/** esbuild's command is its binary once more: its library starts that of the package for the processor. */
const SECOND_BINARY = join('esbuild', 'bin', 'esbuild');

/** Code that is shipped where something loads it. */
const OF_THE_BUILD = /^dist\/.*\.js$/;

/** Those are below /usr/share, or installed from `packaging/`. */
const OF_THE_HOST = /^(dist\/share|packaging)\//;

/** What npm ships, by its paths here. */
const shipped = JSON.parse(
  run('npm', 'pack', '--dry-run', '--json', '--ignore-scripts'),
)[0].files.map(({ path }) => path);

const loaded = await whatIsLoaded();
const target = resolve(into);
const stage = mkdtempSync(join(tmpdir(), 'deb-'));
try {
  program();
  dependencies();
  host();
  generated();
  documents();
  control();
  setModes(stage);
  mkdirSync(target, { recursive: true });
  const file = join(target, `${NAME}_${version}_${ARCHITECTURE}.deb`);
  // Half a second in place of ten, here and where it is installed, for a fifth more of it.
  run('dpkg-deb', '--root-owner-group', '-Zzstd', '-z10', '--build', stage, file);
  console.log(file);
} finally {
  rmSync(stage, { recursive: true, force: true });
}

/**
 * What npm would ship but what has a place of its own, without code that neither the program nor who uses its exports loads,
 * and a name on the path.
 */
function program() {
  for (const path of shipped.filter((each) => !isDocument(each) && !OF_THE_HOST.test(each))) {
    if (!FOR_DEVELOPERS.test(path) && (loaded.files.has(path) || !OF_THE_BUILD.test(path))) {
      copy(path, join(LIB, path));
    }
  }
  link(`../lib/${NAME}/bin/${NAME}.js`, `usr/bin/${NAME}`);
}

/** The packages that are loaded; the licences of all, since the others' code is in the program's. */
function dependencies() {
  for (const { name, path } of loaded.packages) {
    const filter = (file) => {
      const inside = relative(path, file);
      return !FOR_DEVELOPERS.test(inside) && join(name, inside) !== SECOND_BINARY;
    };
    cpSync(path, join(stage, LIB, 'node_modules', name), { recursive: true, filter });
  }
  write(`${DOC}/copyright`, licences());
}

/** Of this build: the files that the program and its exports are made of, and the packages that those ask for by name. */
async function whatIsLoaded() {
  const made = JSON.parse(readFileSync(join(ROOT, 'dist/pieces.json'), 'utf8'));
  const { metafile } = await build({
    absWorkingDir: ROOT,
    entryPoints: [...made, ...Object.values(exports)].filter((path) => path.endsWith('.js')),
    outdir: 'dist',
    bundle: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    write: false,
    metafile: true,
  });
  const asked = Object.values(metafile.inputs).flatMap(({ imports }) =>
    imports.filter(({ external }) => external).map(({ path }) => path),
  );
  const installed = new Map(runtimePackages().map((each) => [each.name, each]));
  const packages = new Set();
  const add = (name) => {
    const found = installed.get(name);
    if (found !== undefined && !packages.has(found)) {
      packages.add(found);
      const about = JSON.parse(readFileSync(join(found.path, 'package.json'), 'utf8'));
      Object.keys({ ...about.dependencies, ...about.optionalDependencies }).forEach(add);
    }
  };
  asked.map((path) => /^(@[^/]+\/)?[^/]+/.exec(path)[0]).forEach(add);
  return { files: new Set(Object.keys(metafile.inputs)), packages };
}

function host() {
  const folder = (from, to) => {
    for (const name of readdirSync(join(ROOT, 'packaging', from))) {
      copy(join('packaging', from, name), join(to, name));
    }
  };
  folder('systemd', 'usr/lib/systemd/system');
  folder('sysusers.d', 'usr/lib/sysusers.d');
  folder('udev', 'usr/lib/udev/rules.d');
  copy(
    'packaging/vfio-user/50-vfio-user-sriov.json',
    'usr/share/vfio-user/50-vfio-user-sriov.json',
  );
  copy('packaging/vfio-user/backend', `usr/libexec/${NAME}`);
  copy('packaging/libvirt/qemu-hook', `usr/share/${NAME}/libvirt/qemu-hook`);
  // For options of its users'.
  mkdirSync(join(stage, 'etc', NAME), { recursive: true });
  copy('packaging/libvirt/apparmor', `etc/apparmor.d/abstractions/libvirt-qemu.d/${NAME}`);
}

function generated() {
  const share = join(stage, 'usr/share');
  run(process.execPath, join(ROOT, 'dist/packaging/generate/main.js'), share);
  const pages = join(share, 'man/man1');
  for (const page of readdirSync(pages)) {
    writeFileSync(join(pages, `${page}.gz`), gzipSync(readFileSync(join(pages, page))));
    rmSync(join(pages, page));
  }
}

/** Where they are in the sources, for the sake of their links. */
function documents() {
  const linked = ['LICENSE', 'protocol/hotplug/hotplug.proto'];
  for (const path of [...shipped.filter(isDocument), ...linked]) {
    copy(path, `${DOC}/${path}`);
  }
  write(`${DOC}/changelog.gz`, gzipSync(readFileSync(join(ROOT, 'CHANGELOG.md'))));
}

function isDocument(path) {
  return path.endsWith('.md') || path.startsWith('examples/');
}

function control() {
  const kibibytes = Math.ceil(sizeOf(stage) / 1024);
  write(
    'DEBIAN/control',
    [
      `Package: ${NAME}`,
      `Version: ${version}`,
      `Architecture: ${ARCHITECTURE}`,
      `Maintainer: ${NAME} maintainers <${NAME}@localhost>`,
      `Installed-Size: ${kibibytes}`,
      'Depends: nodejs (>= 20.19)',
      'Recommends: qemu-system-x86 (>= 1:10.1), systemd, udev',
      'Section: admin',
      'Priority: optional',
      `Description: ${description.split(':')[0]}`,
      ` ${description}.`,
      '',
    ].join('\n'),
  );
  write('DEBIAN/conffiles', `/etc/apparmor.d/abstractions/libvirt-qemu.d/${NAME}\n`);
  for (const name of ['postinst', 'prerm', 'postrm']) {
    copy(`packaging/deb/${name}`, `DEBIAN/${name}`);
    chmodSync(join(stage, 'DEBIAN', name), 0o755);
  }
}

/** Of everything below, whatever the umask of who built it: all may read, root may write. */
function setModes(folder) {
  chmodSync(folder, 0o755);
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isSymbolicLink()) {
      const isProgram = entry.isDirectory() || (statSync(path).mode & 0o100) !== 0;
      chmodSync(path, isProgram ? 0o755 : 0o644);
    }
  }
}

function sizeOf(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}

function copy(from, to) {
  const file = join(stage, to);
  mkdirSync(dirname(file), { recursive: true });
  if (!existsSync(join(ROOT, from))) {
    throw new Error(`${from} is not there: run npm run build first`);
  }
  copyFileSync(join(ROOT, from), file);
}

function link(to, path) {
  mkdirSync(dirname(join(stage, path)), { recursive: true });
  symlinkSync(to, join(stage, path));
}

function write(path, content) {
  mkdirSync(dirname(join(stage, path)), { recursive: true });
  writeFileSync(join(stage, path), content);
}

function run(command, ...args) {
  return execFileSync(command, args, { cwd: ROOT, encoding: 'utf8', maxBuffer: 64 * 2 ** 20 });
}
