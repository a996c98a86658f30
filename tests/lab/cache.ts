// The lab's cache folder: each part is a subfolder that appears complete or not at all. Parts are built in a folder
// of their own and renamed, under a lock that the kernel releases when its holder dies.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { LabError } from './lab-error.ts';

/** Where the lab keeps what it fetched: `$VFIO_USER_SRIOV_LAB`, else a folder in the user's cache. */
export function cacheFolder(environment: NodeJS.ProcessEnv = process.env): string {
  const chosen = environment.VFIO_USER_SRIOV_LAB;
  return resolve(chosen || join(homedir(), '.cache', 'vfio-user-sriov-lab'));
}

/** Gives `folder/part`; when it is not there, `build` fills a new folder, which then takes that name. Hold the lock. */
export async function cachedPart(
  folder: string,
  part: string,
  build: (target: string) => Promise<void>,
): Promise<string> {
  const final = join(folder, part);
  if (existsSync(final)) {
    return final;
  }
  const building = join(folder, `.building-${part}`);
  await rm(building, { recursive: true, force: true });
  await mkdir(building, { recursive: true });
  await build(building);
  await rename(building, final);
  return final;
}

/** Runs `work` while no other process holds the lock of `folder`; waits for as long as another one does. */
export async function withLock<T>(folder: string, work: () => Promise<T>): Promise<T> {
  await mkdir(folder, { recursive: true }).catch((error: NodeJS.ErrnoException) => {
    throw new LabError(
      `cache folder ${folder}`,
      error.message,
      'set VFIO_USER_SRIOV_LAB to a folder that you can write to',
    );
  });
  // flock(1) holds the lock for as long as its cat runs, and cat ends when our end of its input is closed.
  const holder = spawn('flock', [join(folder, '.lock'), '-c', 'echo locked; exec cat'], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  try {
    await Promise.race([
      once(holder.stdout, 'data'),
      once(holder, 'exit').then(() => {
        throw new LabError(
          'flock',
          `could not lock ${folder}`,
          'check that the folder is writable',
        );
      }),
      once(holder, 'error').then(([error]) => {
        const { message } = error as Error;
        throw new LabError('flock', message, 'install it: apt-get install util-linux');
      }),
    ]);
    return await work();
  } finally {
    holder.stdin.destroy();
  }
}
