// How a handler answers: with a body that it writes, or later.

import { type Hold, whenOver } from '../../device/hold.ts';
import { LATER } from '../handler.ts';
import type { Session } from '../session.ts';

export const EMPTY = new Uint8Array(0);
/** Of many writes in one message, so many are carried out before the other clients have their turn. */
export const WRITES_OF_A_TURN = 32;

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

/**
 * Carries out writes to the session's function. Their answer, also that one of them failed, waits until nothing that they
 * began holds it back, which mostly is not at all.
 */
export function answerWrites(session: Session, body: Uint8Array, carryOut: () => void): number {
  let failure: unknown;
  try {
    carryOut();
  } catch (error) {
    failure = error;
  }
  const holds = session.endpoint.function.takeHolds();
  if (holds.length > 0) {
    return answerWhenDone(session, body.slice(), (done) => whenOver(holds, () => done(failure)));
  }
  if (failure !== undefined) {
    throw failure;
  }
  return write(session, body);
}

/** As `answerWrites`, for as many writes as a message has room for: `carryOut` does one of `count`, by its index. */
export function answerManyWrites(
  session: Session,
  body: Uint8Array,
  count: number,
  carryOut: (index: number) => void,
): number {
  const holds: Hold[] = [];
  let next = 0;
  return answerWhenDone(session, body, (done) => {
    const goOn = (): void => {
      let failure: unknown;
      try {
        for (const end = Math.min(next + WRITES_OF_A_TURN, count); next < end; next++) {
          carryOut(next);
        }
      } catch (error) {
        failure = error;
        next = count;
      }
      holds.push(...session.endpoint.function.takeHolds());
      if (next < count) {
        session.goOnLater(goOn);
      } else {
        whenOver(holds, () => done(failure));
      }
    };
    goOn();
  });
}

/** Answers at once where the work was done at once, else when it is done; the session takes nothing in between. */
export function answerWhenDone(
  session: Session,
  body: Uint8Array,
  start: (done: (error?: unknown) => void) => void,
): number {
  let finished: { error: unknown } | undefined;
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
