import { existsSync, mkdtempSync, openSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Session } from '../../../backend/server/session.ts';
import { UnixServer } from '../../../backend/server/unix-server.ts';
import { EventLoop } from '../../../backend/thread/event-loop.ts';
import { Errno } from '../../../protocol/errno.ts';
import { logInto } from '../../../protocol/log.ts';
import { createEventFd, drainEventFd, signalEventFd } from '../../../protocol/unix/eventfd.ts';
import { connectUnix, setNonBlocking, socketPair } from '../../../protocol/unix/fd-socket.ts';
import { closeFd, ErrnoNumber, shutdown } from '../../../protocol/unix/libc.ts';
import { SocketBuffer } from '../../../protocol/unix/socket-buffer.ts';
import { Command, RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { encodeFrame, type Frame, FrameAssembler } from '../../../protocol/vfio-user/framing.ts';
import { HeaderFlag, RegionAccess } from '../../../protocol/vfio-user/messages.ts';
import { encodeVersion } from '../../../protocol/vfio-user/version.ts';
import { DeviceUnderTest } from '../device/device-under-test.ts';
import { openFds } from '../protocol/unix/open-fds.ts';

const SHUT_RD = 0;
const SHUT_WR = 1;
const SERVER_COMMAND = 0x8001;
/** As large a read as BAR 0 allows: a reply that fills a socket soon. */
const LARGE = 64 * 1024;
/** More replies than any socket holds. */
const MANY = 64;

type Received = Pick<Frame, 'id' | 'error' | 'fds'> & { readonly bytes: number };

/** The client's end, on which nothing happens but by the test. */
class Peer {
  readonly received: Received[] = [];
  isClosed = false;
  readonly #fd: number;
  readonly #buffer = new SocketBuffer(256 * 1024, 100);
  readonly #assembler = new FrameAssembler({ maxMessageBytes: 4 * LARGE, maxFds: 64 });

  constructor(fd: number) {
    setNonBlocking(fd);
    this.#fd = fd;
  }

  /** False when the server does not take it now. */
  send(command: number, body: Uint8Array, { id = 1, flags = 0 as number } = {}): boolean {
    const bytes = encodeFrame({ id, command, flags }, body);
    this.#buffer.data.set(bytes);
    const sent = this.#buffer.send(this.#fd, 0, bytes.length);
    if (sent !== bytes.length && sent !== -ErrnoNumber.EAGAIN) {
      throw new Error(`sent ${sent}`);
    }
    return sent === bytes.length;
  }

  sendBytes(bytes: Uint8Array, fds: readonly number[] = []): void {
    this.#buffer.data.set(bytes);
    this.#buffer.send(this.#fd, 0, bytes.length, fds);
  }

  readLarge(id: number): boolean {
    const access = { offset: 0n, region: RegionIndex.bar0, count: LARGE };
    return this.send(Command.regionRead, RegionAccess.encode(access), { id });
  }

  /** A message with fds, whatever it is. */
  sendFds(fds: readonly number[]): void {
    const wide = new SocketBuffer(64, 253);
    const bytes = encodeFrame({ id: 1, command: Command.deviceReset, flags: 0 });
    wide.data.set(bytes);
    wide.send(this.#fd, 0, bytes.length, fds);
  }

  /** Takes what has arrived. */
  read(): void {
    for (;;) {
      const result = this.#buffer.receive(this.#fd);
      if (result === 0) {
        this.isClosed = true;
      }
      if (result <= 0) {
        return;
      }
      this.#assembler.push(this.#buffer.data.subarray(0, result), this.#buffer.fds, (frame) => {
        const { id, error, fds, body } = frame;
        this.received.push({ id, error, fds, bytes: body.length });
      });
    }
  }

  /** Takes what has arrived; whether that is what a test waits for. */
  hasRead(isEnough: () => boolean): boolean {
    this.read();
    return isEnough();
  }

  close(): void {
    closeFd(this.#fd);
  }
}

let before: number;
let folder: string;
let device: DeviceUnderTest;
let loop: EventLoop;
/** Milliseconds that have passed for the server. */
let now: number;
let server: UnixServer;
let peers: Peer[];
let log: string[];
/** Fds that must be closed where nobody waits. */
let discarded: number[];

beforeEach(() => {
  before = openFds();
  folder = mkdtempSync(join(tmpdir(), 'vfu-'));
  device = new DeviceUnderTest();
  now = 0;
  loop = new EventLoop(0, undefined, { now: () => now });
  log = [];
  discarded = [];
  server = new UnixServer(
    loop,
    logInto((level, message) => log.push(`${level}: ${message}`)),
    (fd) => discarded.push(fd),
  );
  peers = [];
});
afterEach(() => {
  server.close();
  loop.close();
  for (const peer of peers) {
    peer.close();
  }
  device.close();
  rmSync(folder, { recursive: true });
  expect(openFds()).toBe(before);
});

/** Lets the server do what it can for now. */
function serve(): void {
  for (let round = 0; round < 20; round++) {
    loop.after(0, () => loop.stop());
    loop.run();
  }
}

/** Lets the server go on until `condition` holds; false where it does not come to that. */
function servedUntil(condition: () => boolean): boolean {
  for (let round = 0; round < 1000; round++) {
    serve();
    if (condition()) {
      return true;
    }
  }
  return false;
}

/** A client that is negotiated; its socket is one that the server was handed. */
function negotiated(closed: () => void = () => {}): { peer: Peer; session: Session } {
  const [ours, theirs] = socketPair();
  const session = server.adopt(theirs, { function: device.pf, native: false }, closed);
  const peer = peerOn(ours);
  peer.send(Command.version, encodeVersion(0, 1, { max_msg_fds: 8 }));
  serve();
  peer.read();
  expect(peer.received.splice(0)).toMatchObject([{ error: 0 }]);
  return { peer, session };
}

function peerOn(fd: number): Peer {
  const peer = new Peer(fd);
  peers.push(peer);
  return peer;
}

/** Asks for more than the socket holds; gives how often. */
function flood(peer: Peer): number {
  for (let id = 1; id <= MANY; id++) {
    if (!peer.readLarge(id)) {
      return id - 1;
    }
    serve();
  }
  return MANY;
}

/** A client that connects to a listening socket, and says nothing yet. */
function connected(path: string): Peer {
  const peer = peerOn(connectUnix(path));
  serve();
  peer.read();
  return peer;
}

describe('a client that sends as much as it can', () => {
  it('keeps another one waiting for no longer than a turn', () => {
    const { peer } = negotiated();
    const [ours, theirs] = socketPair();
    server.adopt(theirs, { function: device.vf, native: true }, () => {});
    const other = peerOn(ours);
    const access = RegionAccess.encode({ offset: 12n, region: RegionIndex.bar0, count: 4 });
    const write = Uint8Array.from([...access, 1, 2, 3, 4]);
    while (peer.send(Command.regionWrite, write, { flags: HeaderFlag.noReply })) {
      // Until its socket is full.
    }
    other.send(Command.version, encodeVersion(0, 1, {}));
    const before = device.pfHardware.writes;
    let turns = 0;
    for (; other.received.length === 0 && turns < 100; turns++) {
      loop.soon(() => loop.stop());
      loop.run();
      other.read();
    }
    expect(turns).toBe(1);
    expect(device.pfHardware.writes - before).toBeLessThanOrEqual(64);
  });

  it('has all of it done, although it leaves at once', () => {
    const { peer, session } = negotiated();
    const access = RegionAccess.encode({ offset: 12n, region: RegionIndex.bar0, count: 4 });
    const write = Uint8Array.from([...access, 1, 2, 3, 4]);
    const before = device.pfHardware.writes;
    for (let message = 0; message < 200; message++) {
      peer.send(Command.regionWrite, write, { flags: HeaderFlag.noReply });
    }
    peers.pop()?.close();
    expect(servedUntil(() => !session.isOpen)).toBe(true);
    expect(device.pfHardware.writes - before).toBe(200);
    expect(device.pf.attached).toBe(false);
  });
});

describe('a client that cannot be sent to any more', () => {
  it('has its connection end, and costs no turn of the loop after that', () => {
    const [ours, theirs] = socketPair();
    let goings = 0;
    const closed = () => {
      goings++;
    };
    server.adopt(theirs, { function: device.pf, native: false }, closed);
    const peer = peerOn(ours);
    peer.send(Command.version, encodeVersion(0, 1, {}));
    serve();
    flood(peer);
    // It is sent nothing any more, and leaves the other direction open; what it has been sent it takes.
    shutdown(ours, SHUT_RD);
    peer.read();
    serve();
    expect(goings).toBe(1);
    expect(server.sessions).toEqual([]);
    expect(device.pf.attached).toBe(false);
  });

  it('has its connection end where its message carries what cannot be sent', () => {
    const { peer, session } = negotiated();
    session.command(SERVER_COMMAND, new Uint8Array(0), [-1]);
    serve();
    expect(session.isOpen).toBe(false);
    expect(log.join()).toContain('sendmsg: bad file descriptor (EBADF); closing the connection');
    peer.read();
    expect(peer.isClosed).toBe(true);
  });

  it('has its connection end where what it does not take cannot be kept', () => {
    const { peer, session } = negotiated();
    flood(peer);
    session.command(SERVER_COMMAND, new Uint8Array(0), [-1]);
    serve();
    expect(session.isOpen).toBe(false);
    expect(log.join()).toContain('closing the connection');
  });

  it('has its connection end where that is more than 4 MiB', () => {
    const { peer, session } = negotiated();
    flood(peer);
    for (let command = 0; command < 5; command++) {
      session.command(SERVER_COMMAND, new Uint8Array(1 << 20), []);
    }
    serve();
    expect(session.isOpen).toBe(false);
    expect(log.join()).toContain('takes nothing of what it is sent');
  });
});

describe('a client that takes nothing for a while', () => {
  it('is heard all the same where it owes an answer, and not beyond that', () => {
    const { peer, session } = negotiated();
    flood(peer);
    let answers = 0;
    session.command(SERVER_COMMAND, new Uint8Array(0), [], () => {
      answers++;
      return true;
    });
    const asked = session.messages;
    peer.readLarge(MANY + 1);
    peer.send(SERVER_COMMAND, new Uint8Array(0), { id: 1, flags: HeaderFlag.reply });
    serve();
    expect(session.connection.congested).toBe(true);
    expect(answers).toBe(1);
    const heard = session.messages;
    expect(heard - asked).toBeGreaterThan(1);
    peer.readLarge(MANY + 2);
    serve();
    expect(session.messages).toBe(heard);
    const isAnswered = () => peer.received.some(({ id }) => id === MANY + 2);
    expect(servedUntil(() => peer.hasRead(isAnswered))).toBe(true);
  });

  it('gets all that it asked for, although it has said that it asks for nothing more', () => {
    const [ours, theirs] = socketPair();
    const session = server.adopt(theirs, { function: device.pf, native: false }, () => {});
    const peer = peerOn(ours);
    peer.send(Command.version, encodeVersion(0, 1, {}));
    serve();
    const asked = flood(peer);
    shutdown(ours, SHUT_WR);
    expect(servedUntil(() => peer.hasRead(() => !session.isOpen))).toBe(true);
    peer.read();
    expect(peer.received).toHaveLength(1 + asked);
  });
});

describe('fds that a client does not take', () => {
  const commands = (session: Session, fd: number, count: number): void => {
    for (let command = 0; command < count; command++) {
      session.command(SERVER_COMMAND, new Uint8Array(0), [fd]);
    }
  };

  it('are kept for a VF each and a reply, and end its connection beyond that', () => {
    const { peer, session } = negotiated();
    const [fd, held] = [createEventFd(), openFds()];
    flood(peer);
    commands(session, fd, 320);
    serve();
    expect(session.isOpen).toBe(true);
    expect(openFds() - held).toBeGreaterThan(319);
    commands(session, fd, 1);
    serve();
    expect(session.isOpen).toBe(false);
    expect(log.join()).toContain('takes nothing of what it is sent');
    peer.close();
    peers.length = 0;
    expect(openFds()).toBeLessThan(held);
    closeFd(fd);
  });

  it('count only until it has taken them', () => {
    const { peer, session } = negotiated();
    const fd = createEventFd();
    for (let round = 0; round < 2; round++) {
      flood(peer);
      commands(session, fd, 300);
      for (let turn = 0; session.connection.congested && turn < 1000; turn++) {
        serve();
        peer.read();
        peer.received
          .splice(0)
          .flatMap(({ fds }) => fds)
          .forEach(closeFd);
      }
    }
    expect(session.isOpen).toBe(true);
    closeFd(fd);
  });
});

describe('a socket with many clients', () => {
  it('turns those away that are too many, with a line in the log, until one leaves', () => {
    const path = join(folder, 'pf.sock');
    server.listen(path, { function: device.pf, native: false }, { mostConnections: 3 });
    for (let client = 0; client < 3; client++) {
      expect(connected(path).isClosed).toBe(false);
    }
    expect(connected(path).isClosed).toBe(true);
    expect(log).toEqual(['warn: a client is turned away: 3 are connected, which is the most']);
    peers.splice(0, 1)[0]?.close();
    serve();
    expect(connected(path).isClosed).toBe(false);
  });

  it('takes no more than 64 unless told otherwise', () => {
    const path = join(folder, 'pf.sock');
    server.listen(path, { function: device.pf, native: false });
    const closed = Array.from({ length: 66 }, () => connected(path).isClosed);
    expect(closed.filter((each) => each)).toHaveLength(2);
    expect(server.sessions).toHaveLength(64);
  });

  it('keeps no place for those that agree on no VERSION within 30 s, and all for the others', () => {
    const path = join(folder, 'pf.sock');
    server.listen(path, { function: device.pf, native: false }, { mostConnections: 3 });
    const [silent, talker, refused] = [connected(path), connected(path), connected(path)];
    talker.send(Command.version, encodeVersion(0, 1, {}));
    refused.send(Command.version, encodeVersion(99, 0, {}));
    const areClosed = (): boolean[] => {
      serve();
      return [silent, talker, refused].map((peer) => {
        peer.read();
        return peer.isClosed;
      });
    };
    now = 29_999;
    expect(areClosed()).toEqual([false, false, false]);
    now = 30_000;
    expect(areClosed()).toEqual([true, false, true]);
    expect(log.filter((line) => line.includes('no VERSION for 30 s'))).toHaveLength(2);
    expect(connected(path).isClosed).toBe(false);
    now = 1e9;
    talker.readLarge(7);
    expect(areClosed()).toEqual([true, false, true]);
    expect(talker.received.at(-1)).toMatchObject({ id: 7, error: 0 });
  });

  it('waits for nobody any more who has left', () => {
    const path = join(folder, 'pf.sock');
    server.listen(path, { function: device.pf, native: false });
    for (let client = 0; client < 10; client++) {
      connected(path);
      peers.pop()?.close();
      serve();
    }
    now = 1e9;
    serve();
    expect(log).toEqual([]);
  });
});

describe('a socket that was handed over', () => {
  it('is its client’s for as long as that says nothing', () => {
    const [ours, theirs] = socketPair();
    server.adopt(theirs, { function: device.pf, native: false }, () => {});
    const peer = peerOn(ours);
    now = 1e9;
    serve();
    peer.read();
    expect(peer.isClosed).toBe(false);
  });
});

describe('a message with more fds than are taken', () => {
  it('ends the connection, and the log says why', () => {
    const { peer, session } = negotiated();
    const lines = Array.from({ length: 65 }, createEventFd);
    peer.sendFds(lines);
    lines.forEach(closeFd);
    serve();
    expect(session.isOpen).toBe(false);
    expect(log.join()).toContain('more fds than are taken');
  });
});

describe('a client on a socket of its own', () => {
  it('is served, and its going is told once', () => {
    let goings = 0;
    const { peer } = negotiated(() => {
      goings++;
    });
    peer.readLarge(7);
    serve();
    peer.read();
    expect(peer.received).toEqual([{ id: 7, error: 0, fds: [], bytes: 16 + LARGE }]);
    peers.pop()?.close();
    serve();
    expect(goings).toBe(1);
    expect(device.pf.attached).toBe(false);
    expect(server.sessions).toEqual([]);
  });

  it('that breaks the framing gets its answer before the end', () => {
    const { peer } = negotiated();
    const broken = encodeFrame({ id: 3, command: Command.regionRead, flags: 0 });
    new DataView(broken.buffer).setUint32(4, 4, true);
    peer.sendBytes(broken);
    serve();
    peer.read();
    expect(peer.received).toMatchObject([{ id: 3, error: Errno.EINVAL }]);
    expect(peer.isClosed).toBe(true);
  });
});

describe('a file that might never let itself be closed', () => {
  it.each([
    ['that nobody asked for', 2],
    ['of more than one message carries', 65],
  ])('%s is closed elsewhere, and others here', (_, count) => {
    const { peer } = negotiated();
    const strange = openSync('/dev/null', 'r');
    const eventFd = createEventFd();
    const idle = openFds();
    const fds = [eventFd, ...new Array<number>(count - 1).fill(strange)];
    peer.sendBytes(encodeFrame({ id: 1, command: Command.deviceReset, flags: 0 }), fds);
    serve();
    expect(discarded).toHaveLength(Math.min(count, 64) - 1);
    discarded.splice(0).forEach(closeFd);
    // A message with too many ends the connection.
    expect(openFds()).toBe(idle - (count > 64 ? 1 : 0));
    closeFd(strange);
    closeFd(eventFd);
  });
});

describe('a client that does not read', () => {
  it('is not waited for, and nothing more is done for it than fits its socket', () => {
    const { peer, session } = negotiated();
    expect(flood(peer)).toBe(MANY);
    expect(session.busy).toBe(true);
    peer.read();
    expect(peer.received.length).toBeLessThan(MANY);
  });

  it('has no more done for it either when it asks for everything at once', () => {
    const { peer } = negotiated();
    for (let id = 1; id <= MANY; id++) {
      peer.readLarge(id);
    }
    serve();
    expect(device.pfHardware.reads).toBeLessThan(MANY / 2);
  });

  it('gets every answer, in order, when it reads again', () => {
    const { peer, session } = negotiated();
    flood(peer);
    for (let round = 0; round < MANY; round++) {
      peer.read();
      serve();
    }
    expect(peer.received.map(({ id }) => id)).toEqual(
      Array.from({ length: MANY }, (_, index) => index + 1),
    );
    expect(peer.received.every(({ bytes }) => bytes === 16 + LARGE)).toBe(true);
    expect(session.busy).toBe(false);
    peer.readLarge(99);
    serve();
    peer.read();
    expect(peer.received.at(-1)?.id).toBe(99);
  });

  it('does not keep another one waiting', () => {
    const { peer } = negotiated();
    flood(peer);
    const [ours, theirs] = socketPair();
    server.adopt(theirs, { function: device.vf, native: true }, () => {});
    const other = peerOn(ours);
    other.send(Command.version, encodeVersion(0, 1, {}));
    serve();
    other.read();
    expect(other.received).toMatchObject([{ error: 0 }]);
  });

  it('costs nothing more when it goes', () => {
    const { peer, session } = negotiated();
    flood(peer);
    session.command(SERVER_COMMAND, new Uint8Array(0), [0, 1]);
    peers.pop()?.close();
    serve();
    expect(session.isOpen).toBe(false);
    expect(device.pf.attached).toBe(false);
  });

  it('gets the fd that it was sent, although the sender has closed and reused its number since', () => {
    const { peer, session } = negotiated();
    flood(peer);
    const line = createEventFd();
    session.command(SERVER_COMMAND, new Uint8Array(0), [line]);
    signalEventFd(line);
    closeFd(line);
    const usurper = createEventFd();
    expect(usurper).toBe(line);
    for (let round = 0; round < MANY; round++) {
      peer.read();
      serve();
    }
    const [fd] = peer.received.flatMap(({ fds }) => fds);
    expect(drainEventFd(fd!)).toBe(1n);
    closeFd(fd!);
    closeFd(usurper);
  });
});

describe('a client that sends while its answer takes its time', () => {
  it('is read from no further than a bound, and is answered in full afterwards', () => {
    const { peer, session } = negotiated();
    device.pfHardware.isSlow = true;
    peer.send(Command.deviceReset, new Uint8Array(0), { id: 1 });
    const scratch = RegionAccess.encode({ offset: 12n, region: RegionIndex.bar0, count: 4 });
    const write = Uint8Array.from([...scratch, 1, 2, 3, 4]);
    let taken = 0;
    const limit = 100_000;
    while (taken < limit) {
      const more = peer.send(Command.regionWrite, write, { id: 2, flags: HeaderFlag.noReply });
      if (more) {
        taken++;
        continue;
      }
      serve();
      if (!peer.send(Command.regionWrite, write, { id: 2, flags: HeaderFlag.noReply })) {
        break;
      }
      taken++;
    }
    expect(taken).toBeLessThan(limit);
    device.pfHardware.finish();
    // How much a turn takes depends on the machine: what the peer can send says that there is room again.
    expect(servedUntil(() => !session.isBehind && peer.readLarge(3))).toBe(true);
    servedUntil(() => {
      peer.read();
      return peer.received.length > 1;
    });
    expect(peer.received.map(({ id }) => id)).toEqual([1, 3]);
  });
});

describe('listening', () => {
  it('takes clients at a path that only the user can reach, and removes it at the end', () => {
    const path = join(folder, 'pf.sock');
    server.listen(path, { function: device.pf, native: false });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const [first, second] = [peerOn(connectUnix(path)), peerOn(connectUnix(path))];
    for (const peer of [first, second]) {
      peer.send(Command.version, encodeVersion(0, 1, {}));
      serve();
      peer.read();
    }
    expect(first.received).toMatchObject([{ error: 0 }]);
    expect(second.received).toMatchObject([{ error: Errno.EBUSY }]);
    server.close();
    expect(existsSync(path)).toBe(false);
    first.read();
    expect(first.isClosed).toBe(true);
  });

  it('is refused where somebody listens already', () => {
    const path = join(folder, 'pf.sock');
    server.listen(path, { function: device.pf, native: false });
    expect(() => server.listen(path, { function: device.vf, native: false })).toThrow('EADDRINUSE');
  });
});

describe('a connection that is handed over', () => {
  it('serves whoever gets its other end', () => {
    const { session, peerFd } = server.pair({ function: device.vf, native: true });
    const peer = peerOn(peerFd);
    peer.send(Command.version, encodeVersion(0, 1, {}));
    serve();
    peer.read();
    expect(peer.received).toMatchObject([{ error: 0 }]);
    expect(device.vf.attached).toBe(true);
    session.close();
    peer.read();
    expect(peer.isClosed).toBe(true);
    expect(device.vf.attached).toBe(false);
  });
});
