// `vfio-user-sriov qemu` that is ended as soon as there is something that it would leave behind.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, watch } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
/** It is never started. */
const QEMU = [
  ...['qemu-system-x86_64', '-object', 'memory-backend-memfd,id=m,size=64M,share=on'],
  ...['-machine', 'q35,memory-backend=m'],
];

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'launcher-signal-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

it.each(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const)(
  '%s leaves nothing of it at its very start',
  async (signal) => {
    const watched = watch(folder);
    const made = once(watched, 'change');
    const launcher = spawn(process.execPath, [CLI, 'qemu', '--loopback', '--', ...QEMU], {
      stdio: 'ignore',
      env: { ...process.env, TMPDIR: folder },
    });
    const end = once(launcher, 'exit');
    await made;
    watched.close();
    launcher.kill(signal);
    await end;
    expect(readdirSync(folder)).toEqual([]);
  },
);
