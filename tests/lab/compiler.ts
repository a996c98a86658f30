// Compiles the C programs that run inside guests, statically: Debian's tcc with musl, fetched into the lab's cache, so that
// nobody needs a compiler of his own, nor to be root.
import { join } from 'node:path';
import { compilerPrefix } from './lab.ts';
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
