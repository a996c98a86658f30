// Who may connect to a socket: what its file becomes, and what somebody else is told.
import { execFile } from 'node:child_process';
import { chmodSync, statSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { groupLabel, groupNamed } from '../../../../protocol/unix/groups.ts';
import { closeListener, listenUnix } from '../../../../protocol/unix/listener.ts';
import { grantAccess } from '../../../../protocol/unix/socket-access.ts';
import { builtModule } from './built-module.ts';
import { useSocketFolder } from './socket-folder.ts';

const isRoot = process.geteuid?.() === 0;
/** Of no user and no group of any system. */
const SOMEBODY = 54_321;

let folder: string;
let path: string;
useSocketFolder((...made) => {
  [folder, path] = made;
});

/** Connects as user and group `SOMEBODY`, in that `group` besides; "connected", or what is said instead. */
function connectAsSomebody(group = SOMEBODY): Promise<string> {
  const script = `
    const { connectUnix } = await import(${JSON.stringify(builtModule('fd-socket'))});
    process.setgroups([${group}]);
    process.setgid(${SOMEBODY});
    process.setuid(${SOMEBODY});
    try {
      connectUnix(${JSON.stringify(path)});
      console.log('connected');
    } catch (error) {
      console.log(error.message);
    }`;
  const args = ['--input-type=module', '--eval', script];
  return new Promise((resolve) => {
    execFile(process.execPath, args, (_error, stdout) => resolve(stdout.trim()));
  });
}

describe('a socket', () => {
  it.each(['600', '660', '666'])('has mode %s whatever the umask is', (octal) => {
    const mode = Number.parseInt(octal, 8);
    const mask = process.umask(0o177);
    const listener = listenUnix(path, { mode });
    process.umask(mask);
    expect(statSync(path).mode & 0o777).toBe(mode);
    closeListener(listener);
  });

  it.runIf(isRoot)('of a group lets its members connect, and nobody else', async () => {
    chmodSync(folder, 0o711);
    const listener = listenUnix(path, { mode: 0o660, gid: SOMEBODY + 1 });
    expect(statSync(path).gid).toBe(SOMEBODY + 1);
    expect(await connectAsSomebody(SOMEBODY + 1)).toBe('connected');
    expect(await connectAsSomebody()).toBe(
      `connect ${path}: permission denied (EACCES); this user may not use it, which belongs to user 0 and group ${SOMEBODY + 1} with mode 0660: start the backend with --socket-group, or be that user`,
    );
    closeListener(listener);
  });

  it.runIf(isRoot)('in a closed folder is told from one that is not there', async () => {
    const listener = listenUnix(path, { mode: 0o666 });
    expect(await connectAsSomebody()).toContain('a folder on the way to it is closed');
    closeListener(listener);
  });

  it('that a link has taken the place of is left alone, and so is the file', () => {
    const file = join(folder, 'file');
    writeFileSync(file, '', { mode: 0o600 });
    symlinkSync(file, path);
    expect(() => grantAccess(path, { mode: 0o666 })).toThrow('another file took its place');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    unlinkSync(path);
  });
});

describe('a group', () => {
  it('is found by its name, and shown with it', () => {
    const file = join(folder, 'group');
    writeFileSync(file, 'root:x:0:\n# a comment\nkvm:x:64:one,two\nbroken\n');
    expect(groupNamed('kvm', file)).toEqual({ name: 'kvm', gid: 64 });
    expect(groupNamed('broken', file)).toBeUndefined();
    expect(groupLabel(64, file)).toBe('kvm (64)');
    expect(groupLabel(7, file)).toBe('7');
    expect(groupLabel(7, join(folder, 'none'))).toBe('7');
  });
});
