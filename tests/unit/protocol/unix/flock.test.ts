import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { removeLock, tryLock } from '../../../../protocol/unix/flock.ts';
import { closeFd } from '../../../../protocol/unix/libc.ts';
import { builtModule } from './built-module.ts';
import { openFds } from './open-fds.ts';

describe('tryLock', () => {
  let folder: string;
  let path: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'flock-'));
    path = join(folder, 'lock');
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('is held by one at a time, until it is closed', () => {
    const before = openFds();
    const first = tryLock(path);
    expect(first).toBeGreaterThan(0);
    expect(tryLock(path)).toBeUndefined();
    closeFd(first!);
    const second = tryLock(path);
    expect(second).toBeGreaterThan(0);
    closeFd(second!);
    expect(openFds()).toBe(before);
  });

  it('is given back when its holder is killed', async () => {
    const script = `
      import { tryLock } from ${JSON.stringify(builtModule('flock'))};
      console.log(tryLock(${JSON.stringify(path)}) > 0);
      setInterval(() => {}, 1000);
    `;
    const holder = spawn(process.execPath, ['--input-type=module', '-e', script]);
    expect(String((await once(holder.stdout, 'data'))[0])).toBe('true\n');
    expect(tryLock(path)).toBeUndefined();
    holder.kill('SIGKILL');
    await once(holder, 'exit');
    const fd = tryLock(path);
    expect(fd).toBeGreaterThan(0);
    closeFd(fd!);
  });

  it('can be given back without a trace, and is one lock for whoever comes next', () => {
    const first = tryLock(path);
    removeLock(path, first!);
    expect(existsSync(path)).toBe(false);
    const second = tryLock(path);
    expect(second).toBeGreaterThan(0);
    expect(tryLock(path)).toBeUndefined();
    closeFd(second!);
  });

  it('is not held by who holds a file that was removed: the file of that name counts', () => {
    const before = openFds();
    const removed = tryLock(path);
    rmSync(path);
    const current = tryLock(path);
    expect(current).toBeGreaterThan(0);
    removeLock(path, removed!);
    expect(tryLock(path)).toBeUndefined();
    removeLock(path, current!);
    expect(openFds()).toBe(before);
  });

  it('is held by one at a time, also while its file comes and goes', async () => {
    const marker = join(folder, 'inside');
    const script = `
      import { closeSync, openSync, unlinkSync } from 'node:fs';
      import { removeLock, tryLock } from ${JSON.stringify(builtModule('flock'))};
      for (let taken = 0; taken < 500; ) {
        const fd = tryLock(${JSON.stringify(path)});
        if (fd === undefined) continue;
        taken++;
        closeSync(openSync(${JSON.stringify(marker)}, 'wx'));
        unlinkSync(${JSON.stringify(marker)});
        removeLock(${JSON.stringify(path)}, fd);
      }
    `;
    const ends = [1, 2, 3].map(async () => {
      const taker = spawn(process.execPath, ['--input-type=module', '-e', script]);
      return (await once(taker, 'exit'))[0];
    });
    expect(await Promise.all(ends)).toEqual([0, 0, 0]);
    expect(existsSync(path)).toBe(false);
  });

  it('names the file that cannot be opened', () => {
    expect(() => tryLock(join(folder, 'missing', 'lock'))).toThrow('missing/lock');
  });
});
