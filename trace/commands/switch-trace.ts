// `trace --start` and `--stop`: the recording of a backend that runs. The file is opened here, by who asks, and handed over,
// so that nobody has a backend write where they could not write themselves.

import { fixOf, situationOf } from '../../protocol/explained-error.ts';
import { TRACE_MARK } from '../../protocol/trace/format.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { createPreallocatedFile } from '../../protocol/unix/preallocated-file.ts';
import { UserError } from '../../protocol/user-error.ts';
import { VfioUserClient } from '../../vmm-glue/client/client.ts';

export interface SwitchOptions {
  readonly start?: true;
  readonly stop?: true;
  readonly socketPath?: string;
  readonly size: number;
}

const ANSWER_MILLISECONDS = 10_000;

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
  const client = await connect(socketPath);
  try {
    if (path === undefined) {
      await client.stopTrace();
    } else {
      await startInto(client, createPreallocatedFile(path, size, TRACE_MARK));
    }
  } catch (error) {
    if (error instanceof UserError) {
      throw error;
    }
    throw new UserError(
      `backend at ${socketPath}: ${situationOf(error)}`,
      'look at its log; `status` says whether a recording is being made already',
    );
  } finally {
    client.close();
  }
}

async function startInto(client: VfioUserClient, fd: number): Promise<void> {
  try {
    await client.startTrace(fd);
  } finally {
    closeFd(fd);
  }
}

async function connect(socketPath: string): Promise<VfioUserClient> {
  try {
    return await VfioUserClient.connect(socketPath, {
      capabilities: { sriov_status: { version: 1 } },
      replyTimeoutMilliseconds: ANSWER_MILLISECONDS,
    });
  } catch (error) {
    throw new UserError(
      `backend at ${socketPath}: ${situationOf(error)}`,
      fixOf(error) ?? 'give the --socket-path of a backend that runs',
    );
  }
}
