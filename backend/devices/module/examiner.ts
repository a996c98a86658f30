// The thread of examine.ts: loads a card, says what it is, or why it is none, and ends.

import { parentPort, workerData } from 'node:worker_threads';
import { UserError } from '../../../protocol/user-error.ts';
import { describeDevice } from '../kit/describe.ts';
import type { Examination, Finding } from './examine.ts';
import { loadDeclaration } from './load-module.ts';
import { asWished } from './wishes.ts';

const { file, wishes } = workerData as Examination;
const say = (finding: Finding): void => parentPort!.postMessage(finding);

try {
  say({ description: describeDevice(asWished(await loadDeclaration(file), wishes)) });
} catch (error) {
  if (!(error instanceof UserError)) {
    throw error;
  }
  const { what, fix } = error;
  say({ refused: { what, fix } });
}
// What the card has left behind, such as timers of Node's, is not waited for.
process.exit();
