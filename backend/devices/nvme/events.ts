// Asynchronous events: what the controller has to tell, and the requests that wait for it. NVM Express 1.4,
// "Asynchronous Event Request command".

import { AsynchronousEvent } from './spec/logs.ts';

export class AsynchronousEvents {
  readonly #most: number;
  /** Identifiers of the commands that wait. */
  #requests: number[] = [];
  readonly #events: AsynchronousEvent[] = [];
  /** Types that were told and whose log page was not read: they are not told again. */
  readonly #masked = new Set<number>();

  constructor(most: number) {
    this.#most = most;
  }

  /** False where too many wait. */
  request(identifier: number): boolean {
    if (this.#requests.length >= this.#most) {
      return false;
    }
    this.#requests.push(identifier);
    return true;
  }

  /** False where it does not wait. */
  abort(identifier: number): boolean {
    const kept = this.#requests.filter((each) => each !== identifier);
    const isFound = kept.length < this.#requests.length;
    this.#requests = kept;
    return isFound;
  }

  happened(event: AsynchronousEvent): void {
    if (!this.#masked.has(event.type) && !this.#events.includes(event)) {
      this.#events.push(event);
    }
  }

  logRead(logPage: number): void {
    for (const type of this.#masked) {
      if (TYPE_OF_LOG.get(logPage) === type) {
        this.#masked.delete(type);
      }
    }
  }

  /** The next completion: whose, and its Dword 0. */
  next(): { identifier: number; result: number } | undefined {
    const at = this.#events.findIndex(({ type }) => !this.#masked.has(type));
    const event = this.#events[at];
    if (event === undefined || this.#requests.length === 0) {
      return undefined;
    }
    this.#events.splice(at, 1);
    this.#masked.add(event.type);
    const result = event.type | (event.information << 8) | (event.logPage << 16);
    return { identifier: this.#requests.shift()!, result };
  }

  reset(): void {
    this.#requests = [];
    this.#events.length = 0;
    this.#masked.clear();
  }
}

/** Which type of event a log page is about. */
const TYPE_OF_LOG: ReadonlyMap<number, number> = new Map(
  Object.values(AsynchronousEvent).map(({ logPage, type }) => [logPage, type]),
);
