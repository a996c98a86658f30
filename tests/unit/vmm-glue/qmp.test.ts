// The QMP client against a server that behaves, is slow, refuses, talks nonsense or vanishes.
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { QmpClient, QmpError, QmpUnavailableError } from '../../../vmm-glue/qemu/qmp.ts';
import { makeGate } from '../../fakes/gate.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';
import { FakeQemu } from '../../fakes/qemu-monitor.ts';

let folder: string;
let qemu: FakeQemu;
let client: QmpClient | undefined;
let clock: ManualClock;

beforeEach(async () => {
  clock = new ManualClock();
  folder = mkdtempSync(join(tmpdir(), 'qmp-'));
  qemu = new FakeQemu(join(folder, 'qmp'));
  await qemu.listen();
});

afterEach(async () => {
  client?.close();
  client = undefined;
  await qemu.vanish();
  rmSync(folder, { recursive: true });
});

const connect = async (timeoutMilliseconds = 5000): Promise<QmpClient> => {
  client = await QmpClient.connect(qemu.path, { timeoutMilliseconds, clock });
  return client;
};

describe('a QMP connection', () => {
  it('leaves negotiation mode and runs commands', async () => {
    const qmp = await connect();
    expect(await qmp.execute('query-status')).toEqual({ running: true, status: 'running' });
    expect(qemu.commands).toEqual(['qmp_capabilities', 'query-status']);
  });

  it('matches answers to commands that were sent together', async () => {
    const qmp = await connect();
    const answers = await Promise.all([
      qmp.execute('query-status'),
      qmp.execute('qom-get', { path: '/machine/peripheral/rp1', property: 'addr' }),
    ]);
    expect(answers).toEqual([{ running: true, status: 'running' }, 8]);
  });

  it('sends an id only where answers could be mistaken for each other', async () => {
    const qmp = await connect();
    await qmp.execute('query-status');
    await qmp.execute('query-status');
    expect(qemu.ids).toEqual([]);
    await Promise.all(['query-status', 'stop', 'cont'].map((command) => qmp.execute(command)));
    expect(new Set(qemu.ids).size).toBe(2);
  });

  it('does not take the late answer to a command for that to the next one', async () => {
    const qmp = await connect();
    const late = makeGate();
    qemu.react('qom-get', { first: () => late.opened });
    const path = '/machine/peripheral/rp1';
    const first = qmp.execute('qom-get', { path, property: 'addr' });
    clock.elapse(5000);
    await expect(first).rejects.toThrow('5000 ms');
    const next = qmp.execute('query-status');
    late.open();
    expect(await next).toMatchObject({ running: true });
  });

  it('hands events over in their order among the answers', async () => {
    const seen: string[] = [];
    const onEvent = ({ event }: { event: string }): void => void seen.push(event);
    client = await QmpClient.connect(qemu.path, { onEvent });
    await client.execute('stop');
    expect(seen).toEqual(['STOP']);
    qemu.emit('RESET');
    await client.execute('cont');
    expect(seen).toEqual(['STOP', 'RESET', 'RESUME']);
  });

  it('gives QEMU’s own words when QEMU refuses', async () => {
    const qmp = await connect();
    qemu.react('stop', 'refuse');
    const refusal = await qmp.execute('stop').catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(QmpError);
    expect(refusal).toMatchObject({ qmpClass: 'GenericError', description: 'no stop today' });
    expect(await qmp.execute('query-status')).toMatchObject({ running: true });
  });

  it('gives up on an answer at its time limit, and ignores it when it comes after all', async () => {
    const qmp = await connect();
    const late = makeGate();
    qemu.react('query-status', { first: () => late.opened });
    const asked = qmp.execute('query-status', undefined, 20).catch((error: unknown) => error);
    clock.elapse(20);
    expect(await asked).toBeInstanceOf(QmpUnavailableError);
    expect(await asked).toMatchObject({
      timedOut: true,
      message: expect.stringContaining('20 ms'),
    });
    late.open();
    qemu.react('stop', { first: () => clock.elapse(4999) });
    expect(await qmp.execute('stop')).toEqual({});
  });

  it('rejects what waits when QEMU vanishes, and everything after that', async () => {
    const qmp = await connect();
    qemu.react('stop', 'ignore');
    const waiting = qmp.execute('stop').catch((error: unknown) => error);
    await qmp.execute('query-status');
    await qemu.vanish();
    expect(await waiting).toMatchObject({ message: expect.stringContaining('closed') });
    expect(await qmp.closed).toBeInstanceOf(QmpUnavailableError);
    await expect(qmp.execute('cont')).rejects.toBeInstanceOf(QmpUnavailableError);
  });

  it('ends without a reason when it is closed from this side', async () => {
    const qmp = await connect();
    qmp.close();
    expect(await qmp.closed).toBeUndefined();
  });
});

describe('a QMP socket that cannot be used', () => {
  it('that does not exist says how to get one', async () => {
    await expect(QmpClient.connect(join(folder, 'none'))).rejects.toThrow('start QEMU with -qmp');
  });

  it('whose QEMU has ended says so', async () => {
    await qemu.vanish();
    // The kernel leaves the file of a killed process behind.
    const dead = join(folder, 'dead');
    const server = createServer();
    await new Promise<void>((resolve) => server.listen({ path: dead, backlog: 0 }, resolve));
    rmSync(dead);
    server.close();
    await expect(QmpClient.connect(dead)).rejects.toBeInstanceOf(QmpUnavailableError);
  });

  it('that another program holds gives no greeting, and the error says what to do', async () => {
    qemu.greets = false;
    const connecting = connect();
    clock.elapse(5000);
    await expect(connecting).rejects.toThrow('another program holds this monitor');
  });

  it('that refuses the handshake is given up', async () => {
    qemu.react('qmp_capabilities', 'refuse');
    await expect(connect()).rejects.toBeInstanceOf(QmpError);
  });

  it('that is no QEMU at all is named as such', async () => {
    const path = join(folder, 'http');
    const server = createServer((socket) => socket.write('HTTP/1.1 400 Bad Request\r\n'));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    await expect(QmpClient.connect(path)).rejects.toThrow('is not QMP');
    server.close();
  });
});
