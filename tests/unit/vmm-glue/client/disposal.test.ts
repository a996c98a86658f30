// What a block declares with `using` is closed at its end.

import { expect, it } from 'vitest';
import { mapMemory } from '../../../../protocol/unix/memory.ts';
import { Interrupt } from '../../../../vmm-glue/client/interrupts.ts';
import { GuestMemory, MappedArea } from '../../../../vmm-glue/client/memory.ts';
import { openFds } from '../../protocol/unix/open-fds.ts';
import { FakeServer } from './fake-server.ts';

it('an interrupt and guest memory give back their fds, an area its memory', () => {
  const before = openFds();
  let bytes: Uint8Array;
  {
    using _interrupt = new Interrupt();
    using memory = new GuestMemory(4096);
    using area = new MappedArea(
      0,
      0,
      mapMemory({ fd: memory.fd, offset: 0, length: 4096, write: true }),
    );
    area.bytes[0] = 7;
    bytes = area.bytes;
    expect(memory.bytes[0]).toBe(7);
  }
  expect(openFds()).toBe(before);
  expect(bytes[0]).toBe(0);
});

it('a client ends its connection', async () => {
  const { client } = await FakeServer.withClient();
  {
    using _used = client;
    expect(client.isOpen).toBe(true);
  }
  expect(client.isOpen).toBe(false);
});
