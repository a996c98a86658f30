// A session over a connection that keeps what is sent, for a PF that notes what it is asked; the handlers do what the
// test's commands say.

import { expect } from 'vitest';
import { HostError } from '../../../backend/device/physical-device.ts';
import type { Endpoint } from '../../../backend/hotplug/endpoint.ts';
import { type Handlers, LATER, type Request } from '../../../backend/server/handler.ts';
import { HANDLERS } from '../../../backend/server/handlers.ts';
import { Session } from '../../../backend/server/session.ts';
import { Errno, WireError } from '../../../protocol/errno.ts';
import { logInto } from '../../../protocol/log.ts';
import { createEventFd } from '../../../protocol/unix/eventfd.ts';
import { SyscallError } from '../../../protocol/unix/syscall-error.ts';
import { encodeFrame } from '../../../protocol/vfio-user/framing.ts';
import { RecordingConnection } from '../../fakes/recording-connection.ts';
import { DeviceUnderTest } from '../device/device-under-test.ts';
import { openFds } from '../protocol/unix/open-fds.ts';

/** Commands of the handlers below, which do what their names say. */
export const Test = {
  echo: 1,
  takeFds: 2,
  refuse: 3,
  hostFails: 4,
  breaks: 5,
  lacksFds: 8,
  later: 6,
  fdReply: 7,
} as const;
const ROLES = ['new', 'device'] as const;
export const SERVER_COMMAND = 0x8001;

export interface Sent {
  readonly id?: number;
  readonly flags?: number;
  readonly fds?: readonly number[];
  readonly body?: readonly number[];
}

export class SessionUnderTest {
  readonly #openBefore = openFds();
  readonly device = new DeviceUnderTest();
  /** Open fds while nothing is going on. */
  readonly idle = openFds();
  connection!: RecordingConnection;
  session!: Session;
  readonly log: string[] = [];
  /** Commands in the order in which they were handled. */
  readonly handled: number[] = [];
  readonly taken: number[] = [];
  /** What a session's turn is measured by: so much passes with each message. */
  messageMilliseconds = 0;
  #now = 0;
  #turnStart: number | undefined;

  /** Of the commands of `Test`. */
  readonly testHandlers: Handlers;

  constructor() {
    const handle = (session: Session, request: Request) => this.#perform(session, request);
    this.testHandlers = Object.fromEntries(
      Object.values(Test).map((command) => [command, { roles: ROLES, handle }]),
    );
    this.open({}, this.testHandlers);
  }

  /** A session anew, with the real handlers unless told otherwise. */
  open(more: Partial<Endpoint> = {}, handlers: Handlers = HANDLERS): void {
    this.connection = new RecordingConnection();
    this.session = new Session(
      this.connection,
      { function: this.device.pf, native: false, ...more },
      handlers,
      logInto((level, message) => this.log.push(`${level}: ${message}`)),
      {
        now: () => {
          this.#now += this.messageMilliseconds;
          return this.#now;
        },
        turnStart: () => {
          this.#turnStart ??= this.#now;
          return this.#turnStart;
        },
      },
    );
  }

  /** The next turn of the loop begins. */
  nextTurn(): void {
    this.#turnStart = undefined;
  }

  send(command: number, { id = 1, flags = 0, fds = [], body = [] }: Sent = {}): void {
    this.session.receive(encodeFrame({ id, command, flags }, Uint8Array.from(body)), fds);
  }

  errorsSent(): number[] {
    return this.connection.takeSent().map(({ error }) => error);
  }

  /** Ends it, and fails where an fd stayed open. */
  close(): void {
    this.session.close();
    this.device.close();
    expect(openFds()).toBe(this.#openBefore);
  }

  #perform(session: Session, { command, body, takeFds, fds }: Request): number {
    this.handled.push(command);
    switch (command) {
      case Test.takeFds:
        this.taken.push(...takeFds());
        return 0;
      case Test.refuse:
        throw new WireError('ENOSPC', `no room for ${fds.length} fds`);
      case Test.hostFails:
        throw new HostError('VFIO_DEVICE_RESET', Errno.EAGAIN, 'function 0', 'busy');
      case Test.lacksFds:
        throw new SyscallError('fcntl', Errno.EMFILE);
      case Test.breaks:
        throw new TypeError('a fault');
      case Test.later:
        return LATER;
      case Test.fdReply:
        session.attachFd(99);
        if (body[0] === 1) {
          throw new WireError('EINVAL', 'after it attached an fd');
        }
        return 0;
      default:
        session.reply.set(body);
        return body.length;
    }
  }
}

export function eventFds(count: number): number[] {
  return Array.from({ length: count }, createEventFd);
}
