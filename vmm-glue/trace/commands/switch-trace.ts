// `trace --start` and `--stop`: the recording of a backend that runs. The file is opened here, by who asks, and handed over,
// so that nobody has a backend write where they could not write themselves.

import { TRACE_MARK } from '../../../protocol/trace/format.ts';
import { closeFd } from '../../../protocol/unix/libc.ts';
import {
  createPreallocatedFile,
  discardPreallocatedFile,
} from '../../../protocol/unix/preallocated-file.ts';
import { UserError } from '../../../protocol/user-error.ts';
import type { VfioUserClient } from '../../client/client.ts';
import { RemoteError } from '../../client/connection-errors.ts';
import { askBackend, unanswered } from '../../client/observer.ts';

export interface SwitchOptions {
  readonly start?: true;
  readonly stop?: true;
  readonly socketPath?: string;
  readonly size: number;
}

export async function switchTrace(
  path: string | undefined,
  { start, stop, socketPath, size }: SwitchOptions,
): Promise<void> {
  if (socketPath === undefined || (start === true) === (stop === true)) {
    throw new UserError(
      'a recording is started or stopped at a socket',
      'give --start or --stop, and --socket-path=PATH',
      2,
    );
  }
  if ((start === true) !== (path !== undefined)) {
    throw new UserError(
      start === true ? '--start needs a file' : '--stop takes no file',
      'say trace --start --socket-path=PATH FILE, or trace --stop --socket-path=PATH',
      2,
    );
  }
  try {
    await askBackend(socketPath, (client) =>
      path === undefined ? stopRecording(client, socketPath) : startInto(client, path, size),
    );
  } catch (error) {
    if (error instanceof UserError) {
      throw error;
    }
    if (error instanceof RemoteError && error.code === 'EBUSY') {
      throw new UserError(
        `backend at ${socketPath}: a recording is being made already`,
        'end it with `trace --stop`, or look at it: `status` says where it is',
      );
    }
    throw unanswered(socketPath, error);
  }
}

/** Leaves no file behind that nothing is recorded into. */
async function startInto(client: VfioUserClient, path: string, size: number): Promise<void> {
  const fd = createPreallocatedFile(path, size, TRACE_MARK);
  try {
    await client.startTrace(fd);
  } catch (error) {
    discardPreallocatedFile(path, fd);
    throw error;
  }
  closeFd(fd);
}

async function stopRecording(client: VfioUserClient, socketPath: string): Promise<void> {
  if ((await client.getStatus()).trace?.on !== true) {
    throw new UserError(
      `backend at ${socketPath}: no recording is being made`,
      'begin one with `trace --start`',
    );
  }
  await client.stopTrace();
}
