// Who may connect, as `serve` is told: what is taken, and what is refused before anything is made.
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  accessOf,
  makeSocketFolder,
  SOCKET_OPTIONS,
} from '../../../backend/commands/socket-options.ts';

const SOCKET = { socketPath: '/run/pf.sock' };
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'socket-options-'));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

const modeOf = SOCKET_OPTIONS.find(({ flags }) => flags.startsWith('--socket-mode'))!.parse!;

describe('who may connect', () => {
  it('is the owner alone unless somebody else is named', () => {
    expect(accessOf(SOCKET)).toBeUndefined();
    expect(accessOf({ ...SOCKET, socketMode: 0o666 })).toEqual({ mode: 0o666 });
  });

  it('is a group by its name or number, which may write', () => {
    const gid = process.getegid!();
    expect(accessOf({ ...SOCKET, socketGroup: String(gid) })).toEqual({ gid, mode: 0o660 });
    vi.spyOn(process, 'geteuid').mockReturnValue(0);
    expect(accessOf({ ...SOCKET, socketGroup: 'root' })).toEqual({ gid: 0, mode: 0o660 });
  });

  it.each([
    [{ ...SOCKET, socketGroup: 'no-such-group' }, '--socket-group=no-such-group: there is no such'],
    [{ fd: 3, socketGroup: 'root' }, '--socket-group is for sockets that serve makes'],
    [{ fd: 3, socketMode: 0o660 }, '--socket-mode is for sockets that serve makes'],
  ])('%j is refused', (options, message) => {
    expect(() => accessOf(options)).toThrow(message);
  });

  it('is no group that this user is not in, but for root', () => {
    vi.spyOn(process, 'geteuid').mockReturnValue(1000);
    const socketGroup = '54321';
    expect(() => accessOf({ ...SOCKET, socketGroup })).toThrow(
      '--socket-group=54321: this user is not in it; only a member of the group 54321, or root',
    );
  });

  it.each(['660', '0660', '600', '777'])('mode %s is taken', (text) => {
    expect(modeOf(text)).toBe(Number.parseInt(text, 8));
  });

  it.each(['', '0', '888', '0060', '066', '1777', 'rw'])('mode "%s" is refused', (text) => {
    expect(() => modeOf(text)).toThrow('It must be an octal mode');
  });
});

describe('the folder of the VFs’ sockets', () => {
  it.each([
    [undefined, 0o700],
    [{ mode: 0o600 }, 0o700],
    [{ mode: 0o660 }, 0o710],
    [{ mode: 0o666 }, 0o711],
  ])('for %j gets mode %i, and so does the one above it', (access, mode) => {
    const path = join(folder, 'run', 'vfs');
    makeSocketFolder(path, access);
    expect(statSync(path).mode & 0o777).toBe(mode);
    expect(statSync(join(folder, 'run')).mode & 0o777).toBe(mode);
  });

  it('that is there stays as it is', () => {
    const before = statSync(folder).mode;
    makeSocketFolder(folder, { mode: 0o666 });
    expect(statSync(folder).mode).toBe(before);
  });
});
