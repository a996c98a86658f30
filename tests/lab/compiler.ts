// Compiles the C programs that run inside guests, statically: Debian's tcc with musl, and for aarch64, where tcc cannot link
// musl, its gcc with glibc; fetched into the lab's cache, so that nobody needs a compiler of his own, nor to be root.
import { join } from 'node:path';
import { aarch64CompilerPrefix, compilerPrefix } from './lab.ts';
import { LabError } from './lab-error.ts';
import { runProgram } from './run-program.ts';

/** Below the prefix. tcc itself runs on the C library that was fetched with it, whatever this machine has. */
const LOADER = 'usr/lib64/ld-linux-x86-64.so.2';
const LIBRARIES = 'usr/lib/x86_64-linux-gnu';
const TCC = 'usr/lib/x86_64-linux-gnu/tcc';
const MUSL = 'usr/lib/x86_64-linux-musl';
const HEADERS = [
  `${TCC}/include`,
  'usr/include/x86_64-linux-musl',
  'usr/include/x86_64-linux-gnu',
  'usr/include',
];

/** Makes the executable `output` of one C file. Throws LabError with what the compiler says. */
export async function compile(source: string, output: string): Promise<void> {
  const prefix = await compilerPrefix();
  const inMusl = (name: string): string => join(prefix, MUSL, name);
  const compiler = ['--library-path', join(prefix, LIBRARIES), join(prefix, 'usr/bin/tcc')];
  // musl and the kernel's headers define some of the same macros, to the same effect: no word of that.
  const options = ['-w', `-B${join(prefix, TCC)}`, '-nostdinc', '-nostdlib', '-static'];
  const includes = HEADERS.map((folder) => `-I${join(prefix, folder)}`);
  const inputs = [
    ...[inMusl('crt1.o'), inMusl('crti.o'), source, inMusl('libc.a')],
    ...[join(prefix, TCC, 'libtcc1.a'), inMusl('crtn.o')],
  ];
  const args = [...compiler, ...options, ...includes, '-o', output, ...inputs];
  const result = await runProgram(join(prefix, LOADER), args);
  if (result.status !== 0) {
    throw new LabError(source, result.stderr.trim(), 'mend what the compiler names');
  }
}

/** The same for a guest with an aarch64 processor. */
async function compileForAarch64(source: string, output: string): Promise<void> {
  const prefix = await aarch64CompilerPrefix();
  const bin = join(prefix, 'usr/bin');
  // gcc looks for `as` and `ld` by these names.
  const tools = join(prefix, 'usr/aarch64-linux-gnu/bin');
  const args = ['-O2', '-static', '-o', output, source];
  const env = { PATH: `${bin}:${process.env.PATH ?? ''}`, COMPILER_PATH: tools, LC_ALL: 'C' };
  const result = await runProgram(join(bin, 'aarch64-linux-gnu-gcc-14'), args, { env });
  if (result.status !== 0) {
    throw new LabError(source, result.stderr.trim(), 'mend what the compiler names');
  }
}

/** By the guest's processor. `prefix` fetches the compiler where it is not there. */
export const COMPILERS = {
  x86_64: { name: 'tcc', compile, prefix: compilerPrefix },
  aarch64: { name: 'aarch64-gcc', compile: compileForAarch64, prefix: aarch64CompilerPrefix },
} as const;
