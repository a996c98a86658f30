import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import {
  decodeReply,
  MESSAGE_VERSION,
  Operation,
  REPLY_BYTES,
  Request,
} from '../../../../../backend/devices/vfio/privileged/messages.ts';
import { RequestServer } from '../../../../../backend/devices/vfio/privileged/request-server.ts';
import { SILENT } from '../../../../../protocol/log.ts';
import { connectUnix } from '../../../../../protocol/unix/fd-socket.ts';
import { closeFd, ErrnoNumber } from '../../../../../protocol/unix/libc.ts';
import { listenUnix } from '../../../../../protocol/unix/listener.ts';
import { processClock } from '../../../../../protocol/unix/process-clock.ts';
import { SocketBuffer } from '../../../../../protocol/unix/socket-buffer.ts';
import { SOON } from '../../../../patience.ts';

const MOST = 16;

let folder: string;
let server: RequestServer;
let listener: number;
let clients: number[];
/** Lets the request that is being carried out end. */
let letGo: () => void;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'request-server-'));
  listener = listenUnix(join(folder, 'sock')).fd;
  clients = [];
  const gate = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  server = new RequestServer({
    listener,
    users: [process.getuid!()],
    handlers: {
      [Operation.readNumVfs]: (_, reply) => gate.then(() => reply({ errno: 0, value: 7 })),
    },
    clock: processClock,
    log: SILENT,
  });
});
afterEach(() => {
  letGo();
  server.close();
  for (const fd of [...clients, listener]) {
    closeFd(fd);
  }
  rmSync(folder, { recursive: true });
});

const buffer = new SocketBuffer(REPLY_BYTES, 1);

async function ask(): Promise<number> {
  const fd = connectUnix(join(folder, 'sock'));
  clients.push(fd);
  const request = { version: MESSAGE_VERSION, operation: Operation.readNumVfs, argument: 0 };
  Request.encode(request, buffer.data);
  buffer.send(fd, 0, Request.size);
  await new Promise((resolve) => setImmediate(resolve));
  return fd;
}

/** How the client has it; an answer is taken. */
function stateOf(fd: number): 'waits' | 'answered' | 'closed' {
  const length = buffer.receive(fd);
  if (length === -ErrnoNumber.EAGAIN) {
    return 'waits';
  }
  return length === REPLY_BYTES && decodeReply(buffer.data).value === 7 ? 'answered' : 'closed';
}

it('who has asked and waits has one of the few places, until there is an answer', async () => {
  for (let count = 0; count < 3 * MOST; count += 1) {
    await ask();
  }
  await vi.waitFor(() => expect(stateOf(clients[MOST]!)).toBe('closed'), SOON);
  await vi.waitFor(
    () => expect(clients.filter((fd) => stateOf(fd) === 'waits')).toHaveLength(MOST),
    SOON,
  );
  const waiting = clients.slice(0, MOST);
  letGo();
  for (const fd of waiting) {
    await vi.waitFor(() => expect(stateOf(fd)).toBe('answered'), SOON);
  }
  const late = await ask();
  await vi.waitFor(() => expect(stateOf(late)).toBe('answered'), SOON);
});
