// What an observer asks, and what a glue reports: the status, and the trace.

import { WireError } from '../../../protocol/errno.ts';
import {
  decodeGetSlots,
  decodeGlueEvents,
  decodeVfsTrapped,
  encodeSlots,
} from '../../../protocol/hotplug/codec.ts';
import type { FaultsAnswer, FaultsRequest } from '../../../protocol/hotplug/status.ts';
import { isPlainFile } from '../../../protocol/unix/peer-file.ts';
import { UserError } from '../../../protocol/user-error.ts';
import { commandName } from '../../../protocol/vfio-user/commands.ts';
import type { FaultSwitch, TraceSwitch } from '../../hotplug/endpoint.ts';
import type { Request } from '../handler.ts';
import type { Session } from '../session.ts';
import { write } from './replies.ts';

/** In a millisecond. */
const NANOSECONDS = 1e6;
/** Bytes of the body of Faults: more than the longest rule takes, however it is escaped. */
export const LONGEST_FAULTS_REQUEST = 4096;

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
    throw new WireError('EINVAL', `${request.fds.length} fds: it takes the file`, { call: name });
  }
  const { tracing } = session.endpoint;
  if (tracing === undefined) {
    throw new WireError('ENOTSUP', 'this socket’s function is recorded with its PF');
  }
  if (!isPlainFile(request.fds[0]!)) {
    throw new WireError('EINVAL', 'a regular file of a plain file system is needed', {
      call: name,
    });
  }
  try {
    start(tracing, request.takeFds()[0]!);
  } catch (error) {
    if (error instanceof UserError) {
      throw new WireError('EINVAL', error.what, { call: name, fix: error.fix });
    }
    throw error;
  }
}

export function traceStop(session: Session): number {
  checkMayObserve(session);
  session.endpoint.tracing?.stop();
  return 0;
}

/** Adds or clears a fault, or only lists them. */
export function faults(session: Session, { body }: Request): number {
  checkMayObserve(session);
  const { faults: target } = session.endpoint;
  if (target === undefined) {
    throw new WireError('ENOTSUP', 'faults are armed at the PF’s socket');
  }
  const refusal = changeFaults(target, requestFrom(body));
  const answer: FaultsAnswer = { refusal, faults: target.status };
  return write(session, new TextEncoder().encode(JSON.stringify(answer)));
}

function changeFaults(target: FaultSwitch, request: FaultsRequest): FaultsAnswer['refusal'] {
  const { add, clear } = request;
  if (add !== undefined) {
    const { position, what, fix } = target.add(add) ?? {};
    return what === undefined ? null : { position: position!, what, fix: fix! };
  }
  if (clear === undefined || target.clear(clear === 0 ? undefined : clear)) {
    return null;
  }
  return { position: null, what: `no fault has the number ${clear}`, fix: 'see `fault list`' };
}

/** @throws WireError EINVAL */
function requestFrom(body: Uint8Array): FaultsRequest {
  // Looked at first: parsing a message's worth of brackets takes half a second.
  if (body.length > LONGEST_FAULTS_REQUEST) {
    throw new WireError('EINVAL', `at most ${LONGEST_FAULTS_REQUEST} bytes are taken`, {
      call: 'Faults',
    });
  }
  let request: unknown;
  try {
    request = JSON.parse(new TextDecoder().decode(body));
  } catch {
    throw new WireError('EINVAL', 'the body is no JSON', { call: 'Faults' });
  }
  if (typeof request !== 'object' || request === null || Array.isArray(request)) {
    throw new WireError('EINVAL', 'the body is no JSON object', { call: 'Faults' });
  }
  const { add, clear } = request as Partial<Record<string, unknown>>;
  const isSound =
    (add === undefined || typeof add === 'string') &&
    (clear === undefined || Number.isSafeInteger(clear)) &&
    (add === undefined || clear === undefined);
  if (!isSound) {
    throw new WireError('EINVAL', 'it takes add, a text, or clear, a number', { call: 'Faults' });
  }
  return request as FaultsRequest;
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

export function getSlots(session: Session, { body }: Request): number {
  const asked = decodeGetSlots(body);
  return write(session, encodeSlots(session.endpoint.hotplug?.slots(asked) ?? []));
}

function checkMayObserve(session: Session): void {
  if (session.agreed?.status === undefined) {
    throw new WireError('EPERM', 'sriov_status was not negotiated on this connection');
  }
}
