import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeFd } from '../../../../protocol/unix/libc.ts';
import {
  makePrivateFolder,
  openPrivateFile,
  readPrivateFile,
  replacePrivateFile,
} from '../../../../protocol/unix/private-file.ts';

const NOBODY = 65534;
const isRoot = process.getuid?.() === 0;

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'private-'));
  path = join(folder, 'file');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const TRAPS: readonly (readonly [string, () => void, string])[] = [
  ['a symbolic link', () => symlinkSync(join(folder, 'victim'), path), 'ELOOP'],
  ['a link to nothing', () => symlinkSync(join(folder, 'nothing'), path), 'ELOOP'],
  ['a FIFO', () => execFileSync('mkfifo', [path]), 'not a plain file'],
  ['a hard link', () => linkSync(join(folder, 'victim'), path), 'a hard link'],
  [
    'a file that all may write',
    () => {
      writeFileSync(path, '');
      chmodSync(path, 0o666);
    },
    'others can write to it',
  ],
];

describe('where somebody else was first and left', () => {
  beforeEach(() => writeFileSync(join(folder, 'victim'), 'secret'));
  afterEach(() => {
    expect(readFileSync(join(folder, 'victim'), 'utf8')).toBe('secret');
    expect(readdirSync(folder)).not.toContain('nothing');
  });

  it.each(TRAPS)('%s, no file is opened', (_what, leave, reason) => {
    leave();
    expect(() => openPrivateFile(path)).toThrow(reason);
    expect(() => readPrivateFile(path)).toThrow(reason);
  });

  it.each(TRAPS)('%s, a replaced file is a new one', (_what, leave) => {
    leave();
    replacePrivateFile(path, 'text');
    expect(readPrivateFile(path)).toBe('text');
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it.runIf(isRoot)('a file of their own, it is refused', () => {
    writeFileSync(path, '');
    chownSync(path, NOBODY, NOBODY);
    expect(() => openPrivateFile(path)).toThrow('a file of the user with number 65534');
  });
});

describe('a folder', () => {
  it('that others can write is no place for a file, but /tmp is', () => {
    chmodSync(folder, 0o777);
    expect(() => openPrivateFile(path)).toThrow(`chmod go-w ${folder}`);
    expect(() => replacePrivateFile(path, '')).toThrow(`chmod go-w ${folder}`);
    chmodSync(folder, 0o1777);
    closeFd(openPrivateFile(path));
  });

  it("that this user's own group can write is a place for one", () => {
    chmodSync(folder, 0o770);
    closeFd(openPrivateFile(path));
  });

  it('is made for this user alone', () => {
    const made = join(folder, 'a', 'b');
    makePrivateFolder(made);
    makePrivateFolder(made);
    expect(statSync(made).mode & 0o777).toBe(0o700);
  });

  it.each([
    ['a link', () => symlinkSync(join(folder, 'other'), path)],
    ['a file', () => writeFileSync(path, '')],
    [
      'a folder that all may write',
      () => {
        mkdirSync(path);
        chmodSync(path, 0o777);
      },
    ],
  ])('that is %s is refused', (_what, leave) => {
    mkdirSync(join(folder, 'other'));
    leave();
    expect(() => makePrivateFolder(path)).toThrow(path);
  });

  it('below one that others can write is refused', () => {
    chmodSync(folder, 0o777);
    expect(() => makePrivateFolder(path)).toThrow(`they can write to ${folder}`);
  });

  it.runIf(isRoot)('of another user, or below one, is refused', () => {
    mkdirSync(path);
    chownSync(path, NOBODY, NOBODY);
    expect(() => makePrivateFolder(path)).toThrow('not a folder of this user');
    expect(() => makePrivateFolder(join(path, 'below'))).toThrow(`they can write to ${path}`);
  });
});

it('a file that is not there is made, or read as nothing', () => {
  expect(readPrivateFile(path)).toBeUndefined();
  closeFd(openPrivateFile(path));
  expect(readPrivateFile(path)).toBe('');
});

it('a replacement that fails leaves the old file, and nothing beside it', () => {
  replacePrivateFile(path, 'old');
  mkdirSync(join(folder, 'in-the-way'));
  expect(() => replacePrivateFile(join(folder, 'in-the-way'), 'new')).toThrow('rename');
  expect(readdirSync(folder).sort()).toEqual(['file', 'in-the-way']);
  expect(readPrivateFile(path)).toBe('old');
});

it('a file is replaced, never written in place: who has the old one open still reads it', () => {
  replacePrivateFile(path, 'old');
  const before = statSync(path).ino;
  replacePrivateFile(path, 'new');
  expect(statSync(path).ino).not.toBe(before);
});
