// Trying again, with delays that double: for what comes back by itself, such as a peer that starts or restarts.
import type { Clock, Timer } from './clock.ts';

export interface RetryOptions {
  readonly clock: Clock;
  readonly firstMilliseconds: number;
  readonly lastMilliseconds: number;
  /** Ends the waiting; the last error stands. */
  readonly signal: AbortSignal;
  /** Whether to give up after this error. */
  isOver(error: unknown): boolean;
}

/** Gives what the first attempt gives that succeeds; rejects with the error after which it is over, or was ended. */
export async function retryUntil<T>(attempt: () => Promise<T>, options: RetryOptions): Promise<T> {
  const { clock, firstMilliseconds, lastMilliseconds, signal } = options;
  for (let delay = firstMilliseconds; ; delay = Math.min(delay * 2, lastMilliseconds)) {
    try {
      return await attempt();
    } catch (error) {
      if (signal.aborted || options.isOver(error)) {
        throw error;
      }
      await elapsed(clock, delay, signal);
      if (signal.aborted) {
        throw error;
      }
    }
  }
}

/** Resolves after that time, or when the signal ends it. */
export function elapsed(clock: Clock, milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      timer.cancel();
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = clock.after(milliseconds, end);
    signal.addEventListener('abort', end);
    if (signal.aborted) {
      end();
    }
  });
}

/** Resolves after that time. */
export function pause(clock: Clock, milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    clock.after(milliseconds, resolve);
  });
}

/** Settles as `answer` does; rejects with what `tooLate` makes where it has not done so after that time. */
export async function within<T>(
  clock: Clock,
  milliseconds: number,
  answer: Promise<T>,
  tooLate: () => Error,
): Promise<T> {
  let limit: Timer | undefined;
  const passed = new Promise<never>((_, reject) => {
    limit = clock.after(milliseconds, () => reject(tooLate()));
  });
  try {
    return await Promise.race([answer, passed]);
  } finally {
    limit?.cancel();
  }
}

export interface Patience {
  readonly clock: Clock;
  readonly patienceMilliseconds: number;
  /** Between two questions. */
  readonly stepMilliseconds: number;
}

/** Asks again and again, until an answer is final or patience is over; gives the last answer. */
export async function askUntil<T>(
  ask: () => T | Promise<T>,
  isFinal: (answer: T) => boolean,
  { clock, patienceMilliseconds, stepMilliseconds }: Patience,
): Promise<T> {
  const deadline = clock.now() + patienceMilliseconds;
  for (;;) {
    const answer = await ask();
    if (isFinal(answer) || clock.now() > deadline) {
      return answer;
    }
    await pause(clock, stepMilliseconds);
  }
}
