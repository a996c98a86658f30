// What a model gives, and what it throws, taken for what it is: the model may be of somebody else's code.

import type { Log } from '../../../protocol/log.ts';
import type { FunctionModel } from './declaration.ts';

const CALLBACKS = [
  'readTrapped',
  'writeTrapped',
  'reset',
  'close',
] as const satisfies readonly (keyof FunctionModel)[];

/** Of a line of the log: as many as it takes at once, whatever they are. */
const MOST_CHARACTERS = 2500;
const MOST_OF_FRAMES = 1800;

/** Nothing may be waited for on the device thread; `name`: whose result it is. @throws TypeError */
export function noPromise<T>(result: T, name = 'the callback'): T {
  if (result instanceof Promise) {
    // Its own failure, if there is one, is nobody's surprise.
    result.catch(() => {});
    throw new TypeError(
      `${name} returned a promise; callbacks are synchronous: use after() or work() for what comes later`,
    );
  }
  return result;
}

/** What `create` gave. @throws TypeError where it is no model */
export function insistOnModel(model: FunctionModel): FunctionModel {
  noPromise(model, 'create');
  if (typeof model !== 'object' || model === null) {
    throw new TypeError('create must give an object with the callbacks, {} where there are none');
  }
  for (const name of CALLBACKS) {
    if (model[name] !== undefined && typeof model[name] !== 'function') {
      throw new TypeError(`create gave an object whose ${name} is no function`);
    }
  }
  return model;
}

/** Calls what is a function's model's, and logs what it throws. */
export class ModelGuard {
  /** The device's and the function's. */
  readonly name: string;
  readonly #log: Log;

  constructor(name: string, log: Log) {
    this.name = name;
    this.#log = log;
  }

  call(what: () => string, callback: () => unknown): void {
    try {
      callback();
    } catch (error) {
      this.failed(what(), error);
    }
  }

  failed(what: string, error: unknown): void {
    this.#log.error(`${this.name}: ${what} failed: ${stackOf(error)}`);
  }
}

/** The stack of what was thrown, where it has one; never more than the log takes. Whatever was thrown, this throws nothing. */
export function stackOf(thrown: unknown): string {
  try {
    const text = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
    const frames = text.match(/\n +at .*$/s)?.[0] ?? '';
    const words = frames === '' ? text : text.slice(0, -frames.length);
    return `${clipped(words, MOST_CHARACTERS - MOST_OF_FRAMES)}${clipped(frames, MOST_OF_FRAMES)}`;
  } catch {
    return typeof thrown;
  }
}

/** In one line where it can be: what an Error is called and says. */
export function wordsOf(thrown: unknown): string {
  try {
    return thrown instanceof Error ? clipped(`${thrown.name}: ${thrown.message}`) : stackOf(thrown);
  } catch {
    return typeof thrown;
  }
}

/** What a model says may be of any length, and a line that is too long is lost as a whole: begin and end of it are kept. */
export function clipped(text: string, most = MOST_CHARACTERS): string {
  const left = text.length - most;
  return left > 0
    ? `${text.slice(0, most / 2)} ... ${left} characters ... ${text.slice(-most / 2)}`
    : text;
}
