// A server that is measured: started as a child process, ready at its first line on standard output, ended at the end.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const READY_MILLISECONDS = 20_000;
const END_MILLISECONDS = 5_000;

/** A running server; `readyAfter` = milliseconds from spawn to its first whole line. */
export interface ServerProcess {
  readonly pid: number;
  readonly readyAfter: number;
  stop(): Promise<void>;
}

/** Starts a server and waits for its first line. Rejects, with what it wrote to standard error, if it ends before that. */
export async function startServer(
  command: string,
  args: readonly string[],
): Promise<ServerProcess> {
  const start = performance.now();
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let errors = '';
  child.stderr.on('data', (chunk: Buffer) => {
    errors = (errors + chunk).slice(-4000);
  });
  try {
    await firstLine(child);
  } catch (error) {
    child.kill('SIGKILL');
    throw new Error(`${[command, ...args].join(' ')}: ${(error as Error).message}\n${errors}`);
  }
  const readyAfter = performance.now() - start;
  child.stdout.resume();
  return { pid: child.pid!, readyAfter, stop: () => stop(child) };
}

function firstLine(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    const limit = setTimeout(() => {
      reject(new Error(`no line on standard output within ${READY_MILLISECONDS} ms`));
    }, READY_MILLISECONDS);
    const settle = (error?: Error) => {
      clearTimeout(limit);
      if (error === undefined) {
        resolve();
      } else {
        reject(error);
      }
    };
    child.once('error', settle);
    child.once('exit', (code, signal) => {
      settle(new Error(`ended with ${signal ?? `exit code ${code}`} before it was ready`));
    });
    child.stdout!.on('data', (chunk: Buffer) => {
      if (chunk.includes('\n')) {
        settle();
      }
    });
  });
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) {
    return;
  }
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const force = setTimeout(() => child.kill('SIGKILL'), END_MILLISECONDS);
  await ended;
  clearTimeout(force);
}

/** The backend on a loopback PF, as `node dist/cli.js serve`; `more` = further options. */
export function startBackend(
  socketPath: string,
  more: readonly string[] = [],
): Promise<ServerProcess> {
  const cli = join(repositoryRoot(), 'dist/cli.js');
  return startServer(process.execPath, [
    cli,
    'serve',
    '--loopback',
    `--socket-path=${socketPath}`,
    ...more,
  ]);
}

/** The folder of package.json, from wherever this file was built to. */
export function repositoryRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    if (folder === dirname(folder)) {
      throw new Error('no package.json above the benchmarks');
    }
    folder = dirname(folder);
  }
  return folder;
}

/** Resident memory of a process in KiB, by kind. */
export function residentKibibytes(pid: number): { total: number; anonymous: number; file: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const field = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? Number.NaN);
  return { total: field('VmRSS'), anonymous: field('RssAnon'), file: field('RssFile') };
}

/** Makes a folder of that name in `folder`, and gives its path. */
export function ownFolder(folder: string, name: string): string {
  const own = join(folder, name);
  mkdirSync(own);
  return own;
}
