// The main thread learns what a card is without running any of its code: a thread that ends again loads and describes it, so
// that a file that never comes to its end is told of, as one is that throws.

import { Worker } from 'node:worker_threads';
import type { Clock } from '../../../protocol/clock.ts';
import { stacksOfThreads } from '../../../protocol/unix/thread-stacks.ts';
import { UserError } from '../../../protocol/user-error.ts';
import type { DeviceDescription } from '../../device/physical-device.ts';
import { LONGEST_LOAD_MILLISECONDS } from '../kind.ts';
import { placeIn } from './load-module.ts';
import { sourceStack } from './source-stack.ts';
import type { Wishes } from './wishes.ts';

/** Given to the thread. */
export interface Examination {
  readonly file: string;
  readonly wishes: Wishes;
}

/** What it says, once. */
export type Finding =
  | { readonly description: DeviceDescription }
  | { readonly refused: { readonly what: string; readonly fix: string } };

const EXAMINER = new URL('./examiner.js', import.meta.url);

export interface ExamineOptions {
  readonly clock: Clock;
  /** Ends it at once; it rejects with the reason. */
  readonly ending?: AbortSignal | undefined;
  readonly examiner?: URL | undefined;
}

/** @throws UserError for a file that is no card, or that does not come to its end */
export async function examine(
  examination: Examination,
  options: ExamineOptions,
): Promise<DeviceDescription> {
  options.ending?.throwIfAborted();
  const found = await findingOf(examination, options);
  if ('refused' in found) {
    throw new UserError(found.refused.what, found.refused.fix);
  }
  return found.description;
}

function findingOf(
  examination: Examination,
  { clock, ending, examiner = EXAMINER }: ExamineOptions,
): Promise<Finding> {
  const { file } = examination;
  return new Promise((resolve, reject) => {
    const worker = new Worker(examiner, { workerData: examination });
    const timer = clock.after(LONGEST_LOAD_MILLISECONDS, () => {
      reject(endless(file, stacksOfThreads()));
      void worker.terminate();
    });
    const end = (): void => {
      reject(ending?.reason);
      void worker.terminate();
    };
    ending?.addEventListener('abort', end);
    worker.on('message', resolve);
    worker.on('error', reject);
    worker.on('exit', (code) => {
      timer.cancel();
      ending?.removeEventListener('abort', end);
      reject(endedEarly(file, code));
    });
  });
}

function endless(file: string, stack: string): UserError {
  return new UserError(
    `--device=${file}: it is not loaded after ${LONGEST_LOAD_MILLISECONDS} ms${placeIn(sourceStack(stack, file))}`,
    'let nothing at its top level loop, or be waited for that may not come',
  );
}

function endedEarly(file: string, code: number): UserError {
  return new UserError(
    `--device=${file}: it ends by itself while it is loaded, with code ${code}`,
    'let nothing at its top level call process.exit(), or be waited for that never comes',
  );
}
