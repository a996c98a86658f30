// Answers scrapes over HTTP, on this host alone: at a unix socket, or at a port of the loopback addresses. Whoever asks
// costs the device thread one message at most every LEAST_AGE_MILLISECONDS, however many they are, and whoever reads
// nothing, sends nothing or asks for too much costs a connection, of which there is a fixed number.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { ListenOptions, Socket } from 'node:net';
import type { Clock } from '../../protocol/clock.ts';
import { situationOf } from '../../protocol/explained-error.ts';
import { within } from '../../protocol/retry.ts';
import { closeListener, listenUnix, removeSocketFile } from '../../protocol/unix/listener.ts';
import { SyscallError } from '../../protocol/unix/syscall-error.ts';
import { UserError } from '../../protocol/user-error.ts';
import { Exposition } from './exposition.ts';
import type { Measurement } from './measurement.ts';

/** Where scrapes are answered. */
export type MetricsTarget = { readonly path: string } | { readonly port: number };

/** An answer is given again while it is as young as this. */
const LEAST_AGE_MILLISECONDS = 200;
const MEASURING_MILLISECONDS = 2000;
/** A connection on which nothing moves. */
const IDLE_MILLISECONDS = 10_000;
const REQUEST_MILLISECONDS = 5000;
const MAX_HEADER_BYTES = 8192;
/** One more costs the oldest its connection. */
const MOST_CONNECTIONS = 64;
const LOOPBACK = ['127.0.0.1', '::1'] as const;
const PORT_REFUSALS: Readonly<Record<string, readonly [what: string, fix: string]>> = {
  EADDRINUSE: [
    'another program has this port',
    'choose another one; `ss -ltnp` says who has this one',
  ],
  EACCES: ['this user may not have this port', 'choose one above 1023'],
};
/** This host has no IPv6. */
const NO_SUCH_FAMILY = ['EADDRNOTAVAIL', 'EAFNOSUPPORT'];

export class MetricsServer {
  readonly #target: MetricsTarget;
  readonly #clock: Clock;
  readonly #servers: Server[] = [];
  readonly #connections = new Set<Socket>();
  readonly #exposition = new Exposition();
  #measure: (() => Promise<Measurement>) | undefined;
  #answer: Promise<Buffer> | undefined;
  #removeFile = (): void => {};

  private constructor(target: MetricsTarget, clock: Clock) {
    this.#target = target;
    this.#clock = clock;
  }

  /** Listens from now on. @throws UserError */
  static async listen(target: MetricsTarget, clock: Clock): Promise<MetricsServer> {
    const server = new MetricsServer(target, clock);
    try {
      await server.#listen();
    } catch (error) {
      server.close();
      throw refused(target, error);
    }
    return server;
  }

  /** What a person types to see them. */
  get hint(): string {
    const target = this.#target;
    return 'path' in target
      ? `curl --unix-socket ${target.path} http://localhost/metrics`
      : `curl http://${LOOPBACK[0]}:${target.port}/metrics`;
  }

  /** Until this is called, scrapes are told to come again. */
  serve(measure: () => Promise<Measurement>): void {
    this.#measure = measure;
  }

  close(): void {
    this.#removeFile();
    for (const server of this.#servers.splice(0)) {
      server.close();
      server.closeAllConnections();
    }
  }

  async #listen(): Promise<void> {
    const target = this.#target;
    if ('path' in target) {
      const listener = listenUnix(target.path);
      this.#removeFile = () => removeSocketFile(listener);
      try {
        await this.#add({ fd: listener.fd });
      } catch (error) {
        closeListener(listener);
        throw error;
      }
      return;
    }
    for (const host of LOOPBACK) {
      try {
        await this.#add({ host, port: target.port });
      } catch (error) {
        const { code = '' } = error as NodeJS.ErrnoException;
        if (host === LOOPBACK[0] || !NO_SUCH_FAMILY.includes(code)) {
          throw error;
        }
      }
    }
  }

  async #add(where: ListenOptions | { fd: number }): Promise<void> {
    const server = createServer(
      {
        maxHeaderSize: MAX_HEADER_BYTES,
        headersTimeout: REQUEST_MILLISECONDS,
        requestTimeout: REQUEST_MILLISECONDS,
        keepAliveTimeout: REQUEST_MILLISECONDS,
        connectionsCheckingInterval: REQUEST_MILLISECONDS,
      },
      (request, response) => void this.#respond(request, response),
    );
    server.timeout = IDLE_MILLISECONDS;
    server.on('connection', (socket) => this.#admit(socket));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(where, resolve);
    });
    // An accept that fails, for want of fds, is tried again by the next client.
    server.on('error', () => {});
    this.#servers.push(server);
  }

  #admit(socket: Socket): void {
    const [oldest] = this.#connections;
    if (this.#connections.size >= MOST_CONNECTIONS) {
      oldest!.destroy();
      this.#connections.delete(oldest!);
    }
    this.#connections.add(socket);
    socket.on('close', () => this.#connections.delete(socket));
  }

  async #respond({ method, url = '' }: IncomingMessage, response: ServerResponse): Promise<void> {
    if (url.split('?')[0] !== '/metrics') {
      end(response, 404, 'metrics are at /metrics\n');
    } else if (method !== 'GET' && method !== 'HEAD') {
      end(response.setHeader('Allow', 'GET, HEAD'), 405, 'metrics can be read only\n');
    } else if (this.#measure === undefined) {
      end(response, 503, 'the backend is starting\n');
    } else {
      try {
        const text = await this.#text(this.#measure);
        end(response.setHeader('Content-Type', this.#exposition.contentType), 200, text);
      } catch (error) {
        end(response, 503, `${(error as Error).message}\n`);
      }
    }
  }

  #text(measure: () => Promise<Measurement>): Promise<Buffer> {
    if (this.#answer === undefined) {
      const answer = this.#freshText(measure);
      this.#answer = answer;
      const forget = (): void => {
        this.#answer = undefined;
      };
      answer.then(() => void this.#clock.after(LEAST_AGE_MILLISECONDS, forget), forget);
    }
    return this.#answer;
  }

  async #freshText(measure: () => Promise<Measurement>): Promise<Buffer> {
    const tooLate = (): Error => new Error('the device thread does not answer');
    const measurement = await within(this.#clock, MEASURING_MILLISECONDS, measure(), tooLate);
    return Buffer.from(await this.#exposition.text(measurement));
  }
}

/** One answer a connection where something is wrong: what else came on it is not looked at. */
function end(response: ServerResponse, status: number, body: string | Buffer): void {
  response.statusCode = status;
  response.setHeader('Content-Length', Buffer.byteLength(body));
  if (status !== 200) {
    response.setHeader('Connection', 'close');
  }
  response.end(body);
}

function refused(target: MetricsTarget, error: unknown): unknown {
  if ('path' in target) {
    return error instanceof SyscallError
      ? new UserError(
          `--metrics: ${situationOf(error)}`,
          error.fix ?? 'choose a path in a folder that exists and that you may write to',
        )
      : error;
  }
  const { code = '' } = error as NodeJS.ErrnoException;
  const [what, fix] = PORT_REFUSALS[code] ?? [situationOf(error), 'choose another port'];
  return new UserError(`--metrics=${target.port}: ${what}`, fix);
}
