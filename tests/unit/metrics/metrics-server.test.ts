// A scrape of a backend whose device thread hangs.
import { mkdtempSync, rmSync } from 'node:fs';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { MetricsServer } from '../../../backend/metrics/metrics-server.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';
import { SOON } from '../../patience.ts';

let folder: string;
let socketPath: string;
let clock: ManualClock;
let server: MetricsServer;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'metrics-'));
  socketPath = join(folder, 'metrics.sock');
  clock = new ManualClock();
  server = await MetricsServer.listen({ path: socketPath }, clock);
});
afterEach(() => {
  server.close();
  rmSync(folder, { recursive: true });
});

function scrape(): Promise<[status: number | undefined, body: string]> {
  return new Promise((resolve, reject) => {
    get({ socketPath, path: '/metrics' }, (response) => {
      text(response).then((body) => resolve([response.statusCode, body]), reject);
    }).on('error', reject);
  });
}

it('waits two seconds for the device thread', async () => {
  let asked = 0;
  server.serve(() => {
    asked++;
    return new Promise(() => {});
  });
  const answer = scrape();
  await vi.waitFor(() => expect(asked).toBe(1), SOON);
  clock.elapse(1_999);
  expect(clock.pending).toBe(1);
  clock.elapse(1);
  expect(await answer).toEqual([503, 'the device thread does not answer\n']);
});
