// Builds the C programs of the benchmarks from their sources in the repository, where a C compiler is there.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { repositoryRoot } from './server-process.ts';

/** The built executables. */
export interface CPrograms {
  readonly echoBaseline: string;
  readonly rttClient: string;
  readonly cpuGaps: string;
}

/** Builds all into `folder`; undefined where there is no `cc` (or $CC). Throws what the compiler says if it fails. */
export function buildPrograms(folder: string): CPrograms | undefined {
  const compiler = process.env.CC ?? 'cc';
  if (spawnSync(compiler, ['--version']).status !== 0) {
    return undefined;
  }
  return {
    echoBaseline: build(compiler, folder, 'echo-baseline'),
    rttClient: build(compiler, folder, 'rtt-client'),
    cpuGaps: build(compiler, folder, 'cpu-gaps'),
  };
}

function build(compiler: string, folder: string, name: string): string {
  const source = join(repositoryRoot(), 'tests/bench', `${name}.c`);
  const output = join(folder, name);
  const result = spawnSync(compiler, ['-O2', '-Wall', '-o', output, source], { encoding: 'utf8' });
  if (result.status !== 0) {
    throw new Error(`${compiler} ${source}: ${result.stderr}`);
  }
  return output;
}
