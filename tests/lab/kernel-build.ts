// Builds modules for the guest's kernel, and static programs for guests, with Debian trixie's gcc and the kernel's own
// headers, fetched into the lab's cache: the machine needs neither a compiler nor the guest's kernel.
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { DebianArchive, Suite } from './debian-archive.ts';
import { lab } from './lab.ts';
import { LabError } from './lab-error.ts';
import { type LabPart, partFolder } from './parts.ts';
import { relocatePrograms } from './relocated-programs.ts';
import { runProgram } from './run-program.ts';

/**
 * gcc asks for `ld` by that name, the kernel's tools need libelf, its source is packed by xz; programs are linked with the C
 * library and libuuid.
 */
const PACKAGES = [
  'gcc-14-x86-64-linux-gnu',
  'binutils',
  'make',
  'libelf1t64',
  'xz-utils',
  'libc6-dev',
  'uuid-dev',
];

/** What builds for one kernel, laid out as below `/`. */
export interface KernelBuild {
  readonly prefix: string;
  /** As in `uname -r`. */
  readonly version: string;
}

/** The compiler and the headers of the lab's guest kernel, or of the one in trixie's backports. Throws LabError. */
export async function kernelBuild(kernel?: 'backports'): Promise<KernelBuild> {
  const version = basename((await lab(kernel)).modules);
  const suite = kernel === undefined ? 'trixie' : 'trixie-backports';
  const part: LabPart = {
    name: `kernel-build-3-${version}`,
    what: `a compiler and the headers of Linux ${version}`,
    build: (archive, target) => unpackKernelBuild(archive, target, version, suite),
  };
  return { prefix: await partFolder(part), version };
}

/**
 * Builds the modules of `folder`, which has a Makefile as Linux's kbuild wants it ("Building External Modules"), and puts
 * them into `output`; for the kernel that `build` builds for, or the lab's guest kernel. Gives their paths. Throws LabError with
 * what the compiler says.
 */
export async function buildModules(
  folder: string,
  output: string,
  build?: KernelBuild,
): Promise<string[]> {
  if (!['Makefile', 'Kbuild'].some((name) => existsSync(join(folder, name)))) {
    const fix = 'name the folder of a kernel module, with a Makefile as examples/my-card has it';
    throw new LabError(folder, 'there is no Makefile in it', fix);
  }
  const { prefix, version } = build ?? (await kernelBuild());
  const work = await mkdtemp(join(tmpdir(), 'kernel-module-'));
  try {
    const sources = join(work, basename(folder));
    await cp(folder, sources, { recursive: true });
    // The headers have a kernel image for BTF, which a module can do without.
    const settings = [`M=${sources}`, 'CONFIG_DEBUG_INFO_BTF_MODULES='];
    const said = await runTool(
      prefix,
      folder,
      ['make', '-C', headersOf(prefix, version), ...settings, 'modules'],
      // Where the sources are, for who reads it or clicks on it.
      (text) => text.replaceAll(sources, folder),
    );
    process.stderr.write(warningsIn(said));
    const modules = (await readdir(sources)).filter((name) => name.endsWith('.ko'));
    await mkdir(output, { recursive: true });
    await Promise.all(modules.map((name) => cp(join(sources, name), join(output, name))));
    return modules.map((name) => join(output, name));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Makes the static executable `output`; `options` are gcc's: -I…, -l…. Throws LabError with what the compiler says. */
export async function buildProgram(
  sources: readonly string[],
  output: string,
  options: readonly string[] = [],
): Promise<void> {
  const { prefix } = await kernelBuild();
  const compiler = ['x86_64-linux-gnu-gcc-14', `--sysroot=${prefix}`, '-O2', '-static', '-pthread'];
  const libraries = options.filter((option) => option.startsWith('-l'));
  const others = options.filter((option) => !option.startsWith('-l'));
  await runTool(prefix, sources[0]!, [
    ...[...compiler, ...others, '-o', output],
    ...[...sources, ...libraries],
  ]);
}

/** The compiler's, each with the lines that show its place; not make's, which are about the lab's own kernel. */
function warningsIn(said: string): string {
  const lines = said
    .split('\n')
    .filter((line) => !/^make|^warning: |^ {2}The kernel was|^ {2}You are using/.test(line));
  return lines.some((line) => line.includes(': warning: ')) ? lines.join('\n') : '';
}

/** Runs one of the fetched tools, and gives what it said; `about` is what a failure is reported of. Throws LabError. */
async function runTool(
  prefix: string,
  about: string,
  command: readonly string[],
  readable = (text: string) => text,
): Promise<string> {
  const bin = join(prefix, 'usr/bin');
  const [name, ...args] = command;
  // gcc looks for `as` and `ld` in the second, before it takes this machine's.
  const env = { PATH: `${bin}:${process.env.PATH ?? ''}`, COMPILER_PATH: bin, LC_ALL: 'C' };
  const result = await runProgram(join(bin, name!), args, { env });
  if (result.status !== 0) {
    const report = readable(result.stderr);
    throw new LabError(about, 'it does not compile', 'mend what the compiler names', report);
  }
  return readable(result.stderr);
}

function headersOf(prefix: string, version: string): string {
  return join(prefix, 'usr/src', `linux-headers-${version}`);
}

async function unpackKernelBuild(
  archive: DebianArchive,
  prefix: string,
  version: string,
  suite: Suite,
): Promise<void> {
  const headers = `linux-headers-${version}`;
  // Of what the headers' package depends on only what is needed: it wants the kernel as well.
  const wanted = await archive.dependenciesOf(headers, suite);
  for (const name of [headers, ...wanted.filter((it) => /^linux-(headers|kbuild)-/.test(it))]) {
    await archive.unpack(name, prefix, suite);
  }
  await archive.unpackWithDependencies(PACKAGES, prefix);
  const kbuild = (await readdir(join(prefix, 'usr/lib'))).filter((it) => /^linux-kbuild/.test(it));
  await relocatePrograms(prefix, [
    'usr/bin',
    'usr/libexec/gcc',
    ...kbuild.map((name) => `usr/lib/${name}`),
  ]);
  await nameNeighbours(join(headersOf(prefix, version), 'Makefile'));
}

/** Debian's Makefile has absolute paths of its own folder, and of the common one beside it. */
async function nameNeighbours(makefile: string): Promise<void> {
  const text = await readFile(makefile, 'utf8');
  await writeFile(makefile, text.replaceAll('/usr/src/', '$(CURDIR)/../'));
}
