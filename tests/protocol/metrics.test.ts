// `serve --metrics`: what a scrape gets while a guest enables VFs, and that no scraper, however bad, holds anything up.

import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ReferenceVmm } from '../../vmm-glue/reference-vmm/reference-vmm.ts';
import { BY_A_PROGRAM } from '../patience.ts';
import { noWait } from './hotplug-guest.ts';
import { OwnFolder } from './own-folder.ts';

let folder: OwnFolder;
let metrics: string;

beforeEach(() => {
  folder = new OwnFolder();
  metrics = folder.file('metrics.sock');
});
afterEach(() => folder.remove());

const serve = (where = `unix:${metrics}`) => folder.serve(`--metrics=${where}`);

/** As serve fails: what it says. */
function refusal(where: string): string {
  const { status, stderr } = folder.run(
    'serve',
    '--loopback',
    `--socket-path=${folder.socket}`,
    `--metrics=${where}`,
  );
  expect(status).toBeGreaterThan(0);
  return stderr;
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

function get(options: object): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const call = request({ path: '/metrics', agent: false, ...options }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
    });
    call.on('error', reject);
    call.end();
  });
}

const scrape = () => get({ socketPath: metrics });

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, 'close');
  return port;
}

/** A connection to the metrics that does as it likes. */
async function connected(): Promise<Socket> {
  const peer = connect(metrics);
  peer.on('error', () => {});
  await once(peer, 'connect');
  return peer;
}

it('a scrape shows what a guest and its VMM did', async () => {
  await serve();
  expect((await scrape()).text).toContain('vfio_user_sriov_vfs{state="up"} 0\n');
  const vmm = await ReferenceVmm.start({ pf: folder.socket, wait: noWait });
  await vmm.enableVfs(3);
  const value = async (name: string) => {
    const { text } = await scrape();
    const line = text.split('\n').find((each) => each.startsWith(`vfio_user_sriov_${name} `));
    return Number(line?.split(' ').at(-1));
  };
  await expect.poll(() => value('vfs{state="up"}'), BY_A_PROGRAM).toBe(3);
  expect(await value('phase{phase="enabled"}')).toBe(1);
  expect(await value('enables_total{outcome="enabled"}')).toBe(1);
  expect(await value('dma_windows{function="pf"}')).toBe(1);
  expect(await value('accesses_total{function="pf",kind="config_write"}')).toBeGreaterThan(0);
  expect(await value('accesses_total{function="vf2",kind="config_read"}')).toBeGreaterThan(0);
  expect(await value('request_duration_seconds_count{kind="config_read"}')).toBeGreaterThan(0);
  expect(await value('trace_recording')).toBe(0);
  await vmm.close();
});

it('the socket is this user’s alone, and goes with the backend', async () => {
  await serve();
  expect(statSync(metrics).mode & 0o777).toBe(0o600);
  expect(await folder.end('SIGTERM')).toEqual([0, null]);
  expect(existsSync(metrics)).toBe(false);
});

it('a socket that a killed backend left behind is replaced', async () => {
  await serve();
  await folder.end('SIGKILL');
  expect(existsSync(metrics)).toBe(true);
  await serve();
  expect((await scrape()).status).toBe(200);
});

it('a port is this host’s alone, by either family', async () => {
  const port = await freePort();
  await serve(String(port));
  expect((await get({ host: '127.0.0.1', port })).status).toBe(200);
  const { stdout } = spawnSync('ss', ['-ltnH', `sport = :${port}`], { encoding: 'utf8' });
  expect(stdout ?? '').not.toMatch(/0\.0\.0\.0:\d|\*:\d|\[::\]:\d+ +0/);
  expect(refusal(String(port))).toMatch(
    /^vfio-user-sriov: --metrics=\d+: another program has this port; [^\n]+\n$/,
  );
});

it.each(['0', '65536', 'eth0:80', '0.0.0.0:9100', 'unix:', 'http'])(
  'is refused in one line: --metrics=%s',
  (where) => {
    expect(refusal(where)).toMatch(/^vfio-user-sriov: [^\n]*--metrics[^\n]+\n$/);
  },
);

it('a path that will not do is refused in one line, and what is there stays', async () => {
  writeFileSync(metrics, 'mine');
  expect(refusal(`unix:${metrics}`)).toMatch(/^vfio-user-sriov: --metrics: [^\n]+\n$/);
  expect(statSync(metrics).size).toBe(4);
  expect(refusal(`unix:${folder.file('nowhere/sock')}`)).toMatch(
    /^vfio-user-sriov: --metrics: bind [^\n]*ENOENT[^\n]+\n$/,
  );
});

describe('bad company', () => {
  beforeEach(() => serve());

  it('100 idle connections, scrapes that are never read and a huge request hold nobody up', async () => {
    const peers: Socket[] = [];
    for (let i = 0; i < 100; i++) {
      peers.push(await connected());
    }
    for (let i = 0; i < 20; i++) {
      const silent = await connected();
      silent.pause();
      silent.write('GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(50));
      peers.push(silent);
    }
    const huge = await connected();
    huge.write(`GET /metrics HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(1 << 20)}`);
    peers.push(huge);
    const body = await connected();
    body.write('POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n');
    body.write('x'.repeat(1 << 20));
    peers.push(body);
    expect((await scrape()).status).toBe(200);
    const vmm = await ReferenceVmm.start({ pf: folder.socket, wait: noWait });
    expect(await vmm.enableVfs(2)).toHaveLength(2);
    // An answer is given again for a moment.
    await expect
      .poll(async () => (await scrape()).text, BY_A_PROGRAM)
      .toContain('vfio_user_sriov_vfs{state="up"} 2\n');
    await vmm.close();
    for (const peer of peers) {
      peer.destroy();
    }
    expect(folder.backend.exitCode).toBeNull();
  });

  it.each([
    ['another path', { path: '/' }, 404],
    ['a write', { method: 'DELETE' }, 405],
    ['a query', { path: '/metrics?x=1' }, 200],
  ])('%s is answered %#', async (_what, options, status) => {
    expect((await get({ socketPath: metrics, ...options })).status).toBe(status);
  });
});
