// The backend as a process: its sockets' files, a second one beside it, signals, and clients that come and go.

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeFd } from '../../protocol/unix/libc.ts';
import { listenUnix } from '../../protocol/unix/listener.ts';
import type { ReferenceVmm } from '../../vmm-glue/reference-vmm/reference-vmm.ts';
import { Backend, expectServing } from './backend.ts';
import { reachPhase, startVmm, statusOf } from './hotplug-guest.ts';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

let backend: Backend;
beforeEach(async () => {
  backend = await Backend.start('--total-vfs=4', '--vf-sockets=VF_SOCKETS', '--enable-delay=400');
});
afterEach(() => backend.stop());

function serve(...args: string[]) {
  return spawnSync(process.execPath, [CLI, 'serve', '--loopback', ...args], {
    encoding: 'utf8',
    timeout: 10_000,
  });
}

describe('the backend process', () => {
  it('says on its ready line where it can be reached and what it serves', () => {
    expect(Object.fromEntries(backend.ready)).toMatchObject({
      ready: '',
      socket: backend.socketPath,
      'vf-sockets': backend.vfSocketDirectory,
      'total-vfs': '4',
      'vf-bars': '0:16384:64p',
    });
  });

  it('makes its sockets for its own user only', () => {
    for (const path of [backend.socketPath, backend.vfSocket(0), backend.vfSocket(3)]) {
      expect(statSync(path).mode & 0o777).toBe(0o600);
    }
    expect(existsSync(backend.vfSocket(4))).toBe(false);
  });

  it('ends on SIGTERM with exit code 0, and its sockets are gone', async () => {
    const paths = [backend.socketPath, backend.vfSocket(0)];
    await backend.connect();
    expect(await backend.stop()).toBe(0);
    expect(paths.map((path) => existsSync(path))).toEqual([false, false]);
  });

  it('refuses to start on a socket that another backend serves, with one line, and that one goes on', async () => {
    const second = serve(`--socket-path=${backend.socketPath}`);
    expect(second.status).toBe(1);
    expect(second.stdout).toBe('');
    expect(second.stderr.trim().split('\n')).toHaveLength(1);
    expect(second.stderr).toContain(backend.socketPath);
    await expectServing(backend);
  });

  it('replaces the socket file that a killed backend left', async () => {
    const path = `${backend.socketPath}.stale`;
    closeFd(listenUnix(path).fd);
    expect(existsSync(path)).toBe(true);
    const next = await Backend.start(`--socket-path=${path}`);
    const client = await next.connect({}, path);
    await client.deviceInfo();
    await next.stop();
  });

  it('does not replace a file that is no socket', () => {
    const path = `${backend.socketPath}.txt`;
    writeFileSync(path, 'precious');
    const { status, stderr } = serve(`--socket-path=${path}`);
    expect(status).toBe(1);
    expect(stderr).toContain('not a socket');
    expect(readFileSync(path, 'utf8')).toBe('precious');
  });

  it('asks a VMM to let go of its VFs before it ends', async () => {
    const reasons: string[] = [];
    const vmm: ReferenceVmm = await startVmm(backend, {
      onEvent: (event) => {
        if (event.kind === 'vfUnplug') {
          reasons.push(event.message.reason);
        }
      },
    });
    await vmm.enableVfs(2);
    expect(await backend.stop()).toBe(0);
    expect(reasons).toEqual(['shuttingDown', 'shuttingDown']);
    vmm.kill();
  });

  it('shows status while a VM is attached and the host is busy making VFs', async () => {
    const vmm = await startVmm(backend);
    const enabling = vmm.enableVfs(4);
    const { vfs } = await reachPhase(backend, 'creating');
    expect(vfs.map(({ state }) => state)).toEqual(Array(4).fill('coming-up'));
    expect(await enabling).toHaveLength(4);
    const status = await statusOf(backend);
    expect(status.vfs.map(({ state, holder }) => [state, holder])).toEqual(
      Array(4).fill(['up', 'vmm']),
    );
    vmm.kill();
  });

  it('answers every config access at once while the host is busy', async () => {
    const vmm = await startVmm(backend);
    const enabling = vmm.enableVfs(4);
    await reachPhase(backend, 'creating');
    expect(await vmm.pf.config.read(0, 4)).toBe(0x0053_1d0f);
    expect((await statusOf(backend)).phase).toBe('creating');
    await enabling;
    vmm.kill();
  });

  it('takes VFs away that the guest disabled while the host was still making them', async () => {
    const vmm = await startVmm(backend);
    const refused = vmm.enableVfs(4).catch((error: Error) => error);
    await reachPhase(backend, 'creating');
    vmm.kill();
    await reachPhase(backend, 'disabled');
    expect(await refused).toBeInstanceOf(Error);
  });
});
