// Sockets that systemd has made and passes on: sd_listen_fds(3).

import { UserError } from '../user-error.ts';
import { parseWholeNumber } from './option-values.ts';

const FIRST_FD = 3;
const PF_NAME = 'pf';

/** The fd of the PF's socket; undefined where none is passed to process `pid`. @throws UserError where it is not clear which */
export function activatedFd(environment: NodeJS.ProcessEnv, pid: number): number | undefined {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES = '' } = environment;
  const count = parseWholeNumber(LISTEN_FDS ?? '', 1) ?? 0;
  if (LISTEN_PID !== String(pid) || count === 0) {
    return undefined;
  }
  if (count === 1) {
    return FIRST_FD;
  }
  const named = LISTEN_FDNAMES.split(':')
    .slice(0, count)
    .flatMap((name, index) => (name === PF_NAME ? [FIRST_FD + index] : []));
  const [fd] = named;
  if (fd !== undefined && named.length === 1) {
    return fd;
  }
  throw new UserError(
    `systemd passes ${count} sockets, and ${named.length} of them are named ${PF_NAME}`,
    `pass one, or name that of the PF by FileDescriptorName=${PF_NAME} in its .socket unit`,
  );
}
