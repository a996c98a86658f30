// What a model gives, and what it throws, taken for what it is: the model may be of somebody else's code.

import type { Log } from '../../../protocol/log.ts';
import type { FunctionModel } from './declaration.ts';

const CALLBACKS = [
  'readTrapped',
  'writeTrapped',
  'reset',
  'close',
] as const satisfies readonly (keyof FunctionModel)[];

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

/** The stack of what was thrown, where it has one. */
export function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : textOf(error);
}

/** An object without a prototype is no text. */
function textOf(thrown: unknown): string {
  try {
    return String(thrown);
  } catch {
    return typeof thrown;
  }
}
