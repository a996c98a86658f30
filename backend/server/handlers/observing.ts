// What an observer asks, and what a glue reports: the status, and the trace.

import { WireError } from '../../../protocol/errno.ts';
import { decodeGlueEvents, decodeVfsTrapped } from '../../../protocol/hotplug/codec.ts';
import { isPlainFile } from '../../../protocol/unix/peer-file.ts';
import { UserError } from '../../../protocol/user-error.ts';
import { commandName } from '../../../protocol/vfio-user/commands.ts';
import type { TraceSwitch } from '../../hotplug/endpoint.ts';
import type { Request } from '../handler.ts';
import type { Session } from '../session.ts';
import { write } from './replies.ts';

/** In a millisecond. */
const NANOSECONDS = 1e6;

export function getStatus(session: Session): number {
  checkMayObserve(session);
  return write(session, new TextEncoder().encode(session.endpoint.status?.() ?? '{}'));
}

/** The file is the client's: whoever asks for a recording can write where it goes. */
export function traceStart(session: Session, request: Request): number {
  record(session, request, (tracing, fd) => tracing.start(fd));
  return 0;
}

/** One that ends with the session. */
export function traceWatch(session: Session, request: Request): number {
  if (session.isWatching) {
    throw new WireError('EBUSY', 'this connection watches already');
  }
  record(session, request, (tracing, fd) => session.watchUntilGone(tracing.watch(fd)));
  return 0;
}

function record(
  session: Session,
  request: Request,
  start: (tracing: TraceSwitch, fd: number) => void,
): void {
  checkMayObserve(session);
  const name = commandName(request.command);
  if (request.fds.length !== 1) {
    throw new WireError('EINVAL', `${name}: ${request.fds.length} fds: it takes the file`);
  }
  const { tracing } = session.endpoint;
  if (tracing === undefined) {
    throw new WireError('ENOTSUP', 'this socket’s function is recorded with its PF');
  }
  if (!isPlainFile(request.fds[0]!)) {
    throw new WireError('EINVAL', `${name}: a regular file of a plain file system is needed`);
  }
  try {
    start(tracing, request.takeFds()[0]!);
  } catch (error) {
    if (error instanceof UserError) {
      throw new WireError('EINVAL', `${name}: ${error.message}`);
    }
    throw error;
  }
}

export function traceStop(session: Session): number {
  checkMayObserve(session);
  session.endpoint.tracing?.stop();
  return 0;
}

export function glueEvents(session: Session, { body }: Request): number {
  const { events, lost } = decodeGlueEvents(body);
  const { observers } = session.endpoint.function;
  if (!observers.isEmpty) {
    observers.glue(
      events.map(({ what, text, at, took }) => ({
        at: Number(at) / NANOSECONDS,
        what,
        text,
        took: Number(took) / NANOSECONDS,
      })),
      lost,
    );
  }
  return 0;
}

export function vfsTrapped(session: Session, { body }: Request): number {
  session.endpoint.hotplug?.vfsTrapped(decodeVfsTrapped(body));
  return 0;
}

function checkMayObserve(session: Session): void {
  if (session.agreed?.status === undefined) {
    throw new WireError('EPERM', 'sriov_status was not negotiated on this connection');
  }
}
