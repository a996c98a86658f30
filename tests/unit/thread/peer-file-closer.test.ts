import { openSync } from 'node:fs';
import { expect, it, vi } from 'vitest';
import { PeerFileCloser } from '../../../backend/thread/peer-file-closer.ts';
import { SOON } from '../../patience.ts';
import { openFds } from '../protocol/unix/open-fds.ts';

it('closes what it is given, one after the other, and a number that is no open fd does no harm', async () => {
  const before = openFds();
  const closer = new PeerFileCloser();
  closer.close(9999);
  for (let i = 0; i < 20; i++) {
    closer.close(openSync('/dev/null', 'r'));
  }
  await vi.waitFor(() => expect(openFds()).toBe(before), SOON);
});
