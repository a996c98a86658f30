// The baseline of the guest-pause benchmark: a QMP client that does nothing but send a line and wait for the answer,
// on a monitor of its own beside the glue's, so that it tells what the same commands cost in the very same machine.
import { createConnection, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** A pause as the baseline made it: every command counts, from before the first one to the answer of the last. */
export interface BarePause {
  readonly commands: number;
  readonly milliseconds: number;
}

/** QEMU greets when it has all its devices, of which there may be hundreds. */
const CONNECT_MILLISECONDS = 60_000;

export class BareMonitor {
  readonly #socket: Socket;
  #text = '';
  #answered: ((line: string) => void) | undefined;
  #failed: ((error: Error) => void) | undefined;

  /** Rejects when nobody answers at `path` for a minute. */
  static async connect(path: string): Promise<BareMonitor> {
    const deadline = Date.now() + CONNECT_MILLISECONDS;
    for (;;) {
      const monitor = new BareMonitor(createConnection({ path }));
      try {
        await monitor.#answer();
        await monitor.execute('qmp_capabilities');
        return monitor;
      } catch (error) {
        monitor.close();
        if (Date.now() > deadline) {
          throw error;
        }
      }
      await sleep(10);
    }
  }

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', (error) => this.#failed?.(error));
    socket.on('close', () => this.#failed?.(new Error('QEMU closed its monitor')));
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      this.#text += chunk;
      for (let end = this.#text.indexOf('\n'); end >= 0; end = this.#text.indexOf('\n')) {
        const line = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 1);
        if (!line.includes('"event":')) {
          this.#answered?.(line);
        }
      }
    });
  }

  /** One QMP command; one at a time. Rejects with QEMU's own words. */
  async execute(command: string, args?: Record<string, string>): Promise<unknown> {
    const answer = this.#answer();
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    const { return: value, error } = JSON.parse(await answer);
    if (error !== undefined) {
      throw new Error(error.desc);
    }
    return value;
  }

  /** One command of the human monitor; gives what it prints. */
  async human(line: string): Promise<string> {
    return String(await this.execute('human-monitor-command', { 'command-line': line }));
  }

  /** The 32-bit value of an I/O port. */
  async readPort(port: number): Promise<number> {
    const text = await this.human(`i /w 0x${port.toString(16)}`);
    return Number(/=\s*(0x[0-9a-f]+)/i.exec(text)?.[1]);
  }

  /** Pauses the guest, sends the lines, and lets it go on, with what it had in port 0xCF8. */
  async pause(lines: readonly string[]): Promise<BarePause> {
    const began = performance.now();
    await this.execute('stop');
    const saved = await this.readPort(0xcf8);
    for (const line of lines) {
      await this.human(line);
    }
    await this.human(`o /w 0xcf8 0x${saved.toString(16)}`);
    await this.execute('cont');
    return { commands: lines.length + 4, milliseconds: performance.now() - began };
  }

  close(): void {
    this.#socket.destroy();
  }

  #answer(): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#answered = resolve;
      this.#failed = reject;
    });
  }
}
