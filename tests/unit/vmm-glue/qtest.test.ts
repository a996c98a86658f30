import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { QtestClient } from '../../../vmm-glue/qemu/qtest.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';

let folder: string;
let path: string;
let server: Server;
let answer: string;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'qtest-'));
  path = join(folder, 'qtest');
  answer = '';
  server = createServer((socket) => {
    socket.on('data', () => socket.write(answer));
    socket.on('error', () => {});
  });
  await new Promise<void>((resolve) => void server.listen(path, resolve));
});
afterEach(() => {
  server.close();
  rmSync(folder, { recursive: true });
});

it('gives what stands behind OK, and keeps no timer', async () => {
  answer = 'OK 0x1234\n';
  const clock = new ManualClock();
  const client = await QtestClient.connect(path, clock);
  expect(await client.execute('readl 0x0')).toBe('0x1234');
  expect(clock.pending).toBe(0);
  client.close();
});

it('gives a QEMU up that has not answered within five seconds', async () => {
  const clock = new ManualClock();
  const client = await QtestClient.connect(path, clock);
  const refused = ['readl 0x0', 'readl 0x4'].map((command) =>
    expect(client.execute(command)).rejects.toThrow('no answer to "readl 0x0" within 5 s'),
  );
  clock.elapse(5_000);
  await Promise.all(refused);
  expect([client.isOpen, clock.pending]).toEqual([false, 0]);
});
