// A headless Chromium that opens one page and is told what to do by the DevTools protocol, over a pair of pipes.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';

const PROGRAMS = ['chromium-headless-shell', 'chromium'];
const ANSWER_MILLISECONDS = 30_000;

function program(): string {
  const found = PROGRAMS.find((name) => spawnSync(name, ['--version']).status === 0);
  if (found === undefined) {
    throw new Error(
      'there is no Chromium here; run `apt-get install --no-install-recommends chromium-headless-shell`',
    );
  }
  return found;
}

export class Page {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, (message: { result?: unknown; error?: unknown }) => void>();
  #lastId = 0;
  #session: string | undefined;
  #rest = '';
  /** What the page threw or logged as an error. */
  readonly errors: string[] = [];

  static async open(url: string): Promise<Page> {
    const page = new Page();
    const { targetId } = await page.send<{ targetId: string }>('Target.createTarget', {
      url: 'about:blank',
    });
    const attached = await page.send<{ sessionId: string }>('Target.attachToTarget', {
      targetId,
      flatten: true,
    });
    page.#session = attached.sessionId;
    await page.send('Runtime.enable');
    await page.send('Page.enable');
    await page.send('Emulation.setDeviceMetricsOverride', {
      width: 1280,
      height: 720,
      deviceScaleFactor: 1,
      mobile: false,
    });
    await page.send('Page.navigate', { url });
    return page;
  }

  private constructor() {
    this.#child = spawn(
      program(),
      ['--headless', '--no-sandbox', '--disable-gpu', '--remote-debugging-pipe'],
      { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] },
    );
    (this.#child.stdio[4] as Readable).on('data', (chunk: Buffer) => this.#receive(chunk));
  }

  async send<T>(method: string, params: object = {}): Promise<T> {
    const id = ++this.#lastId;
    const sessionId = this.#session === undefined ? {} : { sessionId: this.#session };
    (this.#child.stdio[3] as Writable).write(
      `${JSON.stringify({ id, method, params, ...sessionId })}\0`,
    );
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`${method}: no answer`)), ANSWER_MILLISECONDS);
      this.#waiting.set(id, ({ result, error }) => {
        clearTimeout(late);
        if (error === undefined) {
          resolve(result as T);
        } else {
          reject(new Error(`${method}: ${JSON.stringify(error)}`));
        }
      });
    });
  }

  /** What an expression gives, in the page. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.send<{
      result: { value: T };
      exceptionDetails?: object;
    }>('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true });
    if (exceptionDetails !== undefined) {
      throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`);
    }
    return result.value;
  }

  async screenshot(): Promise<Buffer> {
    const { data } = await this.send<{ data: string }>('Page.captureScreenshot');
    return Buffer.from(data, 'base64');
  }

  async close(): Promise<void> {
    const exit = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exit;
  }

  #receive(chunk: Buffer): void {
    const parts = (this.#rest + chunk.toString()).split('\0');
    this.#rest = parts.pop() ?? '';
    for (const part of parts) {
      const message = JSON.parse(part) as {
        id?: number;
        method?: string;
        params?: object;
        result?: unknown;
        error?: unknown;
      };
      if (message.id !== undefined) {
        this.#waiting.get(message.id)?.(message);
        this.#waiting.delete(message.id);
      } else if (message.method === 'Runtime.exceptionThrown') {
        this.errors.push(JSON.stringify(message.params));
      }
    }
  }
}
