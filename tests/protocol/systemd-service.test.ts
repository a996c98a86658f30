// `serve` as systemd starts it: what it tells over NOTIFY_SOCKET, and a socket that it is handed by LISTEN_FDS.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { connectUnix } from '../../protocol/unix/fd-socket.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { listenUnix } from '../../protocol/unix/listener.ts';
import { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { runningBackends } from '../../vmm-glue/commands/running-backends.ts';
import { ReferenceVmm } from '../../vmm-glue/reference-vmm/reference-vmm.ts';
import { NotifySocket } from '../fakes/notify-socket.ts';
import { BY_A_PROGRAM } from '../patience.ts';
import { noWait } from './hotplug-guest.ts';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const WATCHDOG_MILLISECONDS = 200;

let folder: string;
let path: string;
let child: ChildProcess;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'service-'));
  path = join(folder, 'pf.sock');
});
afterEach(() => {
  child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

describe.each(['a path', 'an abstract name'])('a service manager at %s', (kind) => {
  let manager: NotifySocket;
  let heard: string[];
  let environment: NodeJS.ProcessEnv;
  beforeEach(() => {
    const address = kind === 'a path' ? join(folder, 'notify') : `@${folder}/notify`;
    manager = new NotifySocket(address);
    heard = [];
    environment = {
      ...process.env,
      NOTIFY_SOCKET: address,
      WATCHDOG_USEC: String(WATCHDOG_MILLISECONDS * 1000),
    };
    serve('--loopback');
  });
  afterEach(() => manager.close());

  function serve(device: string): void {
    child = spawn(process.execPath, [CLI, 'serve', device, `--socket-path=${path}`], {
      stdio: 'ignore',
      env: environment,
    });
  }

  const hears = (line: string): Promise<void> =>
    vi.waitFor(() => {
      heard.push(...manager.take());
      expect(heard.join('\n')).toContain(line);
    }, BY_A_PROGRAM);

  it('hears when clients can connect, what the guest does, and the end', async () => {
    await hears('READY=1\nSTATUS=loopback: SR-IOV disabled, 0 of 7 VFs');
    const vmm = await ReferenceVmm.start({ pf: path, wait: noWait });
    await vmm.enableVfs(2);
    await hears('STATUS=loopback: SR-IOV enabled, 2 of 7 VFs');
    await vmm.close();
    const exit = once(child, 'exit');
    child.kill('SIGTERM');
    await hears('STOPPING=1');
    expect(await exit).toEqual([0, null]);
  });

  it('hears that it is alive, and again once it is no longer stopped', async () => {
    await hears('WATCHDOG=1');
    child.kill('SIGSTOP');
    await vi.waitFor(() => {
      expect(readFileSync(`/proc/${child.pid}/stat`, 'utf8')).toMatch(/\) T /);
    }, BY_A_PROGRAM);
    manager.take();
    heard = [];
    child.kill('SIGCONT');
    await hears('WATCHDOG=1');
  });

  it('hears nothing while the device thread alone hangs', async () => {
    const exit = once(child, 'exit');
    child.kill('SIGKILL');
    await exit;
    manager.take();
    const hangs = join(folder, 'hangs');
    writeFileSync(join(folder, 'card.js'), hangingCard(hangs));
    serve(`--device=${join(folder, 'card.js')}`);
    await hears('READY=1');
    await hears('WATCHDOG=1');
    const client = await VfioUserClient.connect(path);
    // Nobody will answer.
    client.writeRegion(0, 0, new Uint8Array(4)).catch(() => {});
    // What was on its way to the main thread has arrived then.
    await vi.waitFor(() => expect(existsSync(hangs)).toBe(true), BY_A_PROGRAM);
    manager.take();
    rmSync(hangs);
    await vi.waitFor(() => expect(existsSync(hangs)).toBe(true), BY_A_PROGRAM);
    expect(manager.take()).not.toContain('WATCHDOG=1');
    client.close();
  });
});

/** A card that never comes back from a write, and makes the file `hangs` each time that it has hung for a watchdog's time. */
function hangingCard(hangs: string): string {
  return `import { writeFileSync } from 'node:fs';
import { defineDevice, memoryBar, trapped } from 'vfio-user-sriov/device';
const shape = {
  bars: [memoryBar(0, 4096, [trapped(0, 4096)])],
  create: () => ({
    writeTrapped() {
      for (let next = performance.now(); ; ) {
        if (performance.now() >= next + ${WATCHDOG_MILLISECONDS}) {
          writeFileSync('${hangs}', '');
          next = performance.now();
        }
      }
    },
  }),
};
export default defineDevice({
  name: 'card', vendorId: 1, deviceId: 2, vfDeviceId: 3, classCode: 0, totalVfs: 1, pf: shape, vf: shape,
});
`;
}

describe('a socket that systemd passes', () => {
  /** As systemd does: the process that becomes the program knows its own number. */
  const activated = (fd: number, ...args: string[]): ChildProcess => {
    const script = 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"';
    return spawn(
      '/bin/sh',
      ['-c', script, 'sh', process.execPath, CLI, 'serve', '--loopback', ...args],
      { stdio: ['ignore', 'pipe', 'pipe', fd] },
    );
  };

  it('is served without an option, and its file left alone', async () => {
    const { fd } = listenUnix(path);
    child = activated(fd);
    closeFd(fd);
    // It is there before anybody listens, so a client only waits.
    const client = await VfioUserClient.adopt(connectUnix(path));
    expect((await client.deviceInfo()).numRegions).toBeGreaterThanOrEqual(8);
    client.close();
    const found = runningBackends(process.getuid!());
    expect(found).toContainEqual({ pid: child.pid, socketPath: path });
  });

  it('is refused beside another one', async () => {
    const { fd } = listenUnix(path);
    child = activated(fd, `--socket-path=${path}.other`);
    closeFd(fd);
    expect(await text(child.stderr!)).toContain(
      'systemd passes the socket of the PF, and --socket-path or --fd names another',
    );
  });
});
