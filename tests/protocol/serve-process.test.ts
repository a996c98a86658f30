// `serve` as a program that others start: what it says on which stream, and a socket that it is handed.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { connectUnix, socketPair } from '../../protocol/unix/fd-socket.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { listenUnix } from '../../protocol/unix/listener.ts';
import { programName } from '../../protocol/unix/program-version.ts';
import { VfioUserClient } from '../../vmm-glue/client/client.ts';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const HANDED_OVER = 3;

let folder: string;
let child: ChildProcess;
let output: Promise<string>;
let log: Promise<string>;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'serve-'));
});
afterEach(() => {
  child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

/** Starts `serve --loopback`; `fd` becomes number 3 in it. */
function serve(args: readonly string[], fd?: number): void {
  child = spawn(process.execPath, [CLI, 'serve', '--loopback', ...args], {
    stdio: ['ignore', 'pipe', 'pipe', ...(fd === undefined ? [] : [fd])],
  });
  output = text(child.stdout!);
  log = text(child.stderr!);
}

/** A whole life: a client comes and goes, then SIGTERM. */
async function serveOnce(...args: string[]): Promise<void> {
  const path = join(folder, 'pf.sock');
  serve([`--socket-path=${path}`, ...args]);
  await once(child.stdout!, 'data');
  const client = await VfioUserClient.connect(path, {
    capabilities: { sriov_hotplug: { version: 1, role: 'glue' } },
  });
  client.close();
  const exit = once(child, 'exit');
  child.kill('SIGTERM');
  expect(await exit).toEqual([0, null]);
}

describe('a backend with a socket of its own', () => {
  it('says one line on standard output, and logs JSON on standard error', async () => {
    await serveOnce('--log-level=debug', '--log-format=json');
    expect(await output).toMatch(/^ready socket=[^\n]+ total-vfs=7 [^\n]+\n$/);
    const lines = (await log).trim().split('\n');
    const messages = lines.map((line) => (JSON.parse(line) as { msg: string }).msg);
    expect(messages).toContain('hot-plug client attached as glue');
  });

  it('takes no glue of another version, and says so to both sides', async () => {
    const path = join(folder, 'pf.sock');
    serve([`--socket-path=${path}`, '--log-format=json']);
    await once(child.stdout!, 'data');
    const glue = await VfioUserClient.connect(path, {
      capabilities: {
        sriov_hotplug: { version: 1, role: 'glue', program: 'vfio-user-sriov 0.0.1' },
      },
    });
    expect(glue.agreed.hotplug?.program).toBe(programName());
    const own = await VfioUserClient.connect(path, {
      capabilities: { sriov_hotplug: { version: 1, role: 'glue', program: programName() } },
    });
    glue.close();
    own.close();
    child.kill('SIGTERM');
    await once(child, 'exit');
    expect(await log).toContain(
      `a glue is vfio-user-sriov 0.0.1, and this backend ${programName()}: it is refused`,
    );
  });

  it('logs for people where it is told to', async () => {
    await serveOnce('--log-format=pretty');
    expect(await log).toMatch(/^\S*\[\d\d:\d\d:\d\d\.\d+\].*hot-plug client attached as glue/m);
  });

  it('keeps silent where it is told to', async () => {
    await serveOnce('--log-level=silent');
    expect(await log).toBe('');
  });
});

describe('a backend that is handed a connected socket', () => {
  let ours: number;
  beforeEach(() => {
    const [one, theirs] = socketPair();
    ours = one;
    serve([`--fd=${HANDED_OVER}`], theirs);
    closeFd(theirs);
  });

  it('serves it, and ends with its client', async () => {
    const client = await VfioUserClient.adopt(ours);
    expect((await client.deviceInfo()).numRegions).toBeGreaterThanOrEqual(8);
    const exit = once(child, 'exit');
    client.close();
    expect(await exit).toEqual([0, null]);
    expect(await output).toMatch(/^ready fd=3 /);
  });

  it('ends on SIGTERM, too', async () => {
    const client = await VfioUserClient.adopt(ours);
    const exit = once(child, 'exit');
    child.kill('SIGTERM');
    expect(await exit).toEqual([0, null]);
    client.close();
  });
});

describe('a backend that is handed a listening socket', () => {
  it('takes clients of it, one after the other, and leaves its file to whoever made it', async () => {
    const path = join(folder, 'handed.sock');
    const { fd } = listenUnix(path);
    serve([`--fd=${HANDED_OVER}`], fd);
    closeFd(fd);
    await once(child.stdout!, 'data');
    for (let turn = 0; turn < 2; turn++) {
      const client = await VfioUserClient.adopt(connectUnix(path));
      expect((await client.deviceInfo()).numRegions).toBeGreaterThanOrEqual(8);
      client.close();
    }
    const exit = once(child, 'exit');
    child.kill('SIGTERM');
    expect(await exit).toEqual([0, null]);
    expect(existsSync(path)).toBe(true);
  });
});
