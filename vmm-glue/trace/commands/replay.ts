// `replay`: plays a recorded guest against a backend, and says where it answers otherwise.

import { Command } from 'commander';
import { situationOf } from '../../../protocol/explained-error.ts';
import { printable } from '../../../protocol/printable.ts';
import type { TraceEvent } from '../../../protocol/trace/events.ts';
import { processClock } from '../../../protocol/unix/process-clock.ts';
import { UserError } from '../../../protocol/user-error.ts';
import { Naming } from '../reading/naming.ts';
import { TraceFile } from '../reading/trace-file.ts';
import { type Outcome, Player } from '../replay/player.ts';

interface ReplayOptions {
  readonly socketPath: string;
  readonly strict?: true;
}

/** As long as a backend waits for a VMM, by default. */
const ENABLE_MILLISECONDS = 10_000;
const DIFFERS = 1;

export function replayCommand(): Command {
  return new Command('replay')
    .description(
      'Does to the backend at --socket-path what a recorded guest did, and reports the first answer that differs (exit code 1). ' +
        'What belongs to the hardware is not compared, unless --strict; guest memory and timing are not in a recording.',
    )
    .argument('<file>', 'a recording from the backend’s start on')
    .requiredOption(
      '--socket-path <path>',
      'the PF’s socket, of a backend that nobody has been attached to',
    )
    .option('--strict', 'compare every byte')
    .addHelpText(
      'after',
      '\nExample:\n  vfio-user-sriov replay bug.trace --socket-path=/tmp/pf.sock\n',
    )
    .action(replay);
}

async function replay(path: string, { socketPath, strict }: ReplayOptions): Promise<void> {
  const file = new TraceFile(path);
  const events = [...file.events()];
  refuseIncomplete(path, file, events);
  const player = await open(file, socketPath, strict === true);
  try {
    const outcome = await player.play(events);
    process.stdout.write(`${report(outcome).map(printable).join('\n')}\n`);
    process.exitCode = outcome.difference === undefined ? 0 : DIFFERS;
  } catch (error) {
    throw new UserError(
      `backend at ${socketPath}: ${situationOf(error)}`,
      'look at its log: it has stopped answering as it did in the recording',
    );
  } finally {
    player.close();
  }
}

function refuseIncomplete(
  path: string,
  { isWrapped, description, problems }: TraceFile,
  events: readonly TraceEvent[],
): void {
  if (isWrapped) {
    throw new UserError(
      `${path} is not the whole story: its ring went around, and what came first is gone`,
      'record again with a larger --trace-size',
    );
  }
  if (!description.isFromStart) {
    throw new UserError(
      `${path} was started while its backend ran: what the guest had done before is not in it`,
      'record with `serve --trace=FILE`, from the start',
    );
  }
  if (problems[0] !== undefined) {
    throw new UserError(`${path} is damaged: ${problems[0]}`, 'record again');
  }
  if (events.some(({ kind }) => kind === 'gap')) {
    throw new UserError(
      `${path} is not the whole story: events are missing in it`,
      'play it when its backend has ended, or record again',
    );
  }
}

async function open(file: TraceFile, socketPath: string, isStrict: boolean): Promise<Player> {
  try {
    return await Player.open({
      socketPath,
      naming: new Naming(file.description),
      isStrict,
      clock: processClock,
      enableMilliseconds: ENABLE_MILLISECONDS,
    });
  } catch (error) {
    throw new UserError(
      `backend at ${socketPath}: ${situationOf(error)}`,
      'start one that nobody is attached to, and give its --socket-path',
    );
  }
}

function report({ accesses, difference, notPlayed }: Outcome): string[] {
  return [
    difference === undefined
      ? `${accesses} accesses, answered as recorded`
      : `after ${accesses} accesses an answer differs:\n  ${difference}`,
    ...[...notPlayed].map(([what, count]) => `not played: ${what}: ${count} times`),
  ].flatMap((text) => text.split('\n'));
}
