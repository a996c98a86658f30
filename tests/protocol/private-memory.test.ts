// Guest memory that comes without a file: accepted, because ROMs come so too, but said in the log when all of it does.

import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { GuestMemory } from '../../vmm-glue/client/memory.ts';
import { SOON } from '../patience.ts';
import { Backend } from './backend.ts';

const PAGE = 4096;
const WARNING = /came without a file.*share=on/g;

let backend: Backend;
beforeAll(async () => {
  backend = await Backend.start();
});
afterEach(() => backend.disconnect());
afterAll(() => backend.stop());

function warnings(): number {
  return backend.log.match(WARNING)?.length ?? 0;
}

it('a client is told how to share its memory at its first reset, if all of it came without a file', async () => {
  const early = await backend.connect();
  await early.reset();
  await backend.disconnect();

  const sharing = await backend.connect();
  const memory = new GuestMemory(PAGE);
  await sharing.mapDma({ address: 0n, size: BigInt(PAGE), fd: memory.fd });
  await sharing.mapDma({ address: 0xc0000n, size: BigInt(PAGE) });
  await sharing.reset();
  await backend.disconnect();
  memory.close();

  const client = await backend.connect();
  await client.mapDma({ address: 0n, size: BigInt(PAGE) });
  await client.reset();
  await client.reset();
  await client.reset();
  // The log is in order: once this client's is there, those before it would be, too.
  await expect.poll(warnings, SOON).toBeGreaterThan(0);
  await backend.disconnect();
  expect(warnings()).toBe(1);
});
