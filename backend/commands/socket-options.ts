// Where clients connect, and who may: these options of `serve`, and what they come to.

import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { InvalidArgumentError } from 'commander';
import { parseWholeNumber } from '../../protocol/launch/option-values.ts';
import { setCloseOnExec, streamSocketKind } from '../../protocol/unix/fd-socket.ts';
import { groupNamed } from '../../protocol/unix/groups.ts';
import { notOurGroup, type SocketAccess } from '../../protocol/unix/socket-access.ts';
import { failedCall, UserError } from '../../protocol/user-error.ts';
import type { KindOption } from '../devices/kind.ts';
import { wholeNumber } from '../devices/option-values.ts';
import { onlyOne } from './only-one.ts';

export interface SocketOptions {
  readonly socketPath?: string;
  readonly fd?: number;
  readonly vfSockets?: string;
  readonly socketGroup?: string;
  readonly socketMode?: number;
}

export const SOCKET_OPTIONS: readonly KindOption[] = [
  { flags: '--socket-path <path>', description: 'unix socket for the PF' },
  {
    flags: '--fd <number>',
    description:
      'serve a socket that this process is started with, instead: connected, or listening',
    parse: wholeNumber(0),
  },
  {
    flags: '--vf-sockets <folder>',
    description: 'a socket per VF, vf0.sock …, for VMMs that attach VFs as slots',
  },
  {
    flags: '--socket-group <group>',
    description: 'let this group connect, by name or number (default: the owner alone)',
  },
  {
    flags: '--socket-mode <mode>',
    description: 'mode of the sockets (default: 0600, with --socket-group 0660)',
    parse: socketMode,
  },
];

const OWNER_MODE = 0o600;
const GROUP_MODE = 0o660;
/** Connecting takes the right to write. */
const GROUP_CONNECTS = 0o020;
const OTHERS_CONNECT = 0o002;
const MOST_GROUPS = 2 ** 32 - 2;

function socketMode(text: string): number {
  if (!/^0?[0-7]{3}$/.test(text) || (Number.parseInt(text, 8) & OWNER_MODE) !== OWNER_MODE) {
    throw new InvalidArgumentError(
      'It must be an octal mode that lets the owner in, such as 0660.',
    );
  }
  return Number.parseInt(text, 8);
}

/** Where the PF is to be served; `activated`: the fd that systemd passes. @throws UserError unless it is said once, and can be. */
export function socketOf(
  { socketPath, fd }: SocketOptions,
  activated?: number,
): { path: string } | { fd: number } {
  if (activated !== undefined && (socketPath ?? fd) !== undefined) {
    throw new UserError(
      'systemd passes the socket of the PF, and --socket-path or --fd names another',
      'leave the option out, or disable the .socket unit',
      2,
    );
  }
  const given =
    activated ??
    onlyOne<string | number>(
      { '--socket-path': socketPath, '--fd': fd },
      'give --socket-path=PATH for a socket to listen at',
    );
  if (typeof given === 'string') {
    return { path: given };
  }
  if (streamSocketKind(given) === 'other') {
    throw new UserError(
      fd === undefined
        ? `fd ${given}, which systemd passes: it is not a unix stream socket`
        : `--fd=${given}: it is not an open unix stream socket`,
      'hand over one that is connected, or one that listens, under this number',
      2,
    );
  }
  setCloseOnExec(given);
  return { fd: given };
}

/** Who may connect; undefined: the owner alone. @throws UserError where the group is none, or not this user's to give. */
export function accessOf(options: SocketOptions): SocketAccess | undefined {
  const { socketGroup, socketMode, socketPath, vfSockets } = options;
  if (socketGroup === undefined && socketMode === undefined) {
    return undefined;
  }
  if (socketPath === undefined && vfSockets === undefined) {
    throw new UserError(
      `${socketGroup === undefined ? '--socket-mode' : '--socket-group'} is for sockets that serve makes`,
      'give --socket-path, or set who may connect where the socket of --fd is made',
      2,
    );
  }
  if (socketGroup === undefined) {
    return { mode: socketMode! };
  }
  return { gid: gidOf(socketGroup), mode: socketMode ?? GROUP_MODE };
}

function gidOf(group: string): number {
  const gid = groupNamed(group)?.gid ?? parseWholeNumber(group, 0, MOST_GROUPS);
  if (gid === undefined) {
    throw new UserError(
      `--socket-group=${group}: there is no such group`,
      'name one of /etc/group, or give its number',
      2,
    );
  }
  const own = [process.getegid?.(), ...(process.getgroups?.() ?? [])];
  if (process.geteuid?.() === 0 || own.includes(gid)) {
    return gid;
  }
  throw new UserError(`--socket-group=${group}: this user is not in it`, notOurGroup(gid));
}

/** Makes the folder of the VFs' sockets where there is none yet, so that who may connect gets there. @throws UserError */
export function makeSocketFolder(path: string, access: SocketAccess | undefined): void {
  try {
    makeFolder(path, access);
    readdirSync(path);
  } catch (error) {
    throw failedCall(error, 'name a folder that exists or can be made', '--vf-sockets');
  }
}

/** As mkdirSync with `recursive`, which in Node 20 never ends below /proc. */
function makeFolder(path: string, access: SocketAccess | undefined): void {
  if (existsSync(path)) {
    return;
  }
  makeFolder(dirname(path), access);
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    // Another backend has made it at the same moment.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') {
      throw error;
    }
    return;
  }
  if (access !== undefined) {
    if (access.gid !== undefined) {
      chownSync(path, -1, access.gid);
    }
    chmodSync(path, folderMode(access.mode));
  }
}

/** Passing through a folder takes the right to execute. */
function folderMode(mode: number): number {
  const ofGroup = (mode & GROUP_CONNECTS) === 0 ? 0 : 0o010;
  const ofOthers = (mode & OTHERS_CONNECT) === 0 ? 0 : 0o001;
  return 0o700 | ofGroup | ofOthers;
}
