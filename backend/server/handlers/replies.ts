// How a handler answers: with a body that it writes, or later.

import type { Done, HostError } from '../../device/physical-device.ts';
import { type Hold, whenOver } from '../../device/served-function.ts';
import { LATER } from '../handler.ts';
import type { Session } from '../session.ts';

export const EMPTY = new Uint8Array(0);

export function write(session: Session, body: Uint8Array): number {
  session.reply.set(body);
  return body.length;
}

export function put<T>(
  session: Session,
  layout: {
    readonly size: number;
    encode(value: Readonly<T>, into: Uint8Array, at?: number): Uint8Array;
  },
  value: T,
): number {
  layout.encode(value, session.reply);
  return layout.size;
}

/** Answers when nothing holds the answer back any more, which mostly is at once. */
export function answerWhenOver(session: Session, body: Uint8Array, holds: readonly Hold[]): number {
  if (holds.length === 0) {
    return write(session, body);
  }
  return answerWhenDone(session, body.slice(), (done) => whenOver(holds, done));
}

/** Answers at once where the work was done at once, else when it is done; the session takes nothing in between. */
export function answerWhenDone(
  session: Session,
  body: Uint8Array,
  start: (done: Done) => void,
): number {
  let finished: { error: HostError | undefined } | undefined;
  let waiting = false;
  start((error) => {
    if (waiting) {
      session.complete(error, body);
    } else {
      finished = { error };
    }
  });
  if (finished === undefined) {
    waiting = true;
    return LATER;
  }
  if (finished.error !== undefined) {
    throw finished.error;
  }
  return write(session, body);
}
