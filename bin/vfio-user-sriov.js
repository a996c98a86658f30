#!/usr/bin/env -S UV_THREADPOOL_SIZE=64 node
// What npm puts on the PATH. It is there in every checkout, whereas dist/ is there once it was built.
// Each VF of a physical device is opened and closed by a call that takes 0.1 s: the thread pool, which Node sizes before
// it runs a line of a program, must hold them all at once.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const program = new URL('../dist/cli.js', import.meta.url);
const folder = fileURLToPath(new URL('..', import.meta.url));
const BUILD = 'npm ci && npm run build';

if (existsSync(program) && hasDependencies()) {
  await import(program.href).catch(cannotBeLoaded);
} else {
  fail(`${folder} is not built yet; in there run: ${BUILD}`);
}

/** The program tells its own errors; what comes here is about its files: half of them are there, or none can be opened. */
function cannotBeLoaded({ code, message }) {
  const fix =
    code === 'EMFILE'
      ? 'raise the limit of open files (ulimit -n)'
      : `wait for the build that may be going on, or run there: ${BUILD}`;
  fail(`${folder} cannot be loaded: ${message}; ${fix}`);
}

function fail(line) {
  process.stderr.write(`vfio-user-sriov: ${line}\n`);
  process.exitCode = 1;
}

/** One that is no part of the program's own files stands for all: npm installs all or none. */
function hasDependencies() {
  try {
    createRequire(program).resolve('koffi');
    return true;
  } catch {
    return false;
  }
}
