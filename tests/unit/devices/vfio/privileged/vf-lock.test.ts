// Root's two processes do nothing about VFs at the same time, and neither waits for ever for the other.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Answer } from '../../../../../backend/devices/vfio/privileged/request-server.ts';
import { withVfLock } from '../../../../../backend/devices/vfio/privileged/vf-lock.ts';
import { Errno } from '../../../../../protocol/errno.ts';
import { ManualClock } from '../../../../fakes/manual-clock.ts';
import { foldersIn, PF } from '../../../../fakes/vfio-host.ts';

const locked = (context: Parameters<typeof withVfLock>[0], work: () => Promise<Answer>) =>
  new Promise<Answer>((resolve) => void withVfLock(context, PF, work, resolve));

let folder: string;
let clock: ManualClock;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vf-lock-'));
  clock = new ManualClock();
});
afterEach(() => rmSync(folder, { recursive: true }));

it('one waits while the other is at work, and gives up after five seconds', async () => {
  const context = { folders: foldersIn(folder), clock };
  let end = (): void => {};
  const first = locked(context, async () => {
    await new Promise<void>((resolve) => {
      end = resolve;
    });
    return { errno: 0 };
  });
  let hasRun = false;
  const second = locked(context, async () => {
    hasRun = true;
    return { errno: 0 };
  });
  await clock.pass(5_100, 50);
  expect([await second, hasRun]).toEqual([{ errno: Errno.EAGAIN }, false]);
  end();
  expect(await first).toEqual({ errno: 0 });
  expect(await locked(context, async () => ({ errno: 7 }))).toEqual({ errno: 7 });
});
