// A client that uses no device of a backend: it looks at it, and may have it record, or have things go wrong. For commands.

import { fixOf, situationOf } from '../../protocol/explained-error.ts';
import { UserError } from '../../protocol/user-error.ts';
import { VfioUserClient } from './client.ts';
import { RemoteError } from './connection-errors.ts';

const ANSWER_MILLISECONDS = 10_000;
/** Of a socket where nothing can be observed. */
const CANNOT_DO_THAT: readonly string[] = ['EPERM', 'ENOTSUP', 'ENOSYS'];

/** At the PF's socket. Rejects as `VfioUserClient.connect` does. */
export function observe(
  socketPath: string,
  replyTimeoutMilliseconds: number,
): Promise<VfioUserClient> {
  return VfioUserClient.connect(socketPath, {
    capabilities: { sriov_status: { version: 1 } },
    replyTimeoutMilliseconds,
  });
}

/** Asks what `ask` does, and closes. Rejects with UserError where nobody serves there; with what `ask` rejects with otherwise. */
export async function askBackend<T>(
  socketPath: string,
  ask: (client: VfioUserClient) => Promise<T>,
): Promise<T> {
  const client = await observe(socketPath, ANSWER_MILLISECONDS).catch((error: unknown) => {
    throw unanswered(socketPath, error);
  });
  try {
    return await ask(client);
  } finally {
    client.close();
  }
}

/** What a failure means to a person. */
export function unanswered(socketPath: string, error: unknown): UserError {
  return new UserError(
    `backend at ${socketPath}: ${situationOf(error)}`,
    fixOf(error) ?? fixOfRefusal(error) ?? 'give the --socket-path of a backend that runs',
  );
}

/** Undefined where it is none. */
function fixOfRefusal(error: unknown): string | undefined {
  if (!(error instanceof RemoteError)) {
    return undefined;
  }
  return CANNOT_DO_THAT.includes(error.code)
    ? "give the PF's socket, not a VF's; another vfio-user server, or an older backend, cannot do that"
    : 'look at its log';
}
