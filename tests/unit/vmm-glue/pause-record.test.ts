import {
  appendFileSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { UserError } from '../../../protocol/user-error.ts';
import { PauseRecord } from '../../../vmm-glue/qemu/pause-record.ts';

const LONG = { qemu: '4711 at 2026-11-27T00:00:00', configAddress: 0x8000_0810 };
const SHORT = { qemu: '4711' };

let folder: string;
let qmp: string;
let record: PauseRecord | undefined;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pause-'));
  qmp = join(folder, 'qmp.sock');
  writeFileSync(qmp, '');
});
afterEach(() => {
  record?.close();
  rmSync(folder, { recursive: true });
});

/** What the glue after this one finds. */
function successor(): PauseRecord {
  record?.close();
  record = PauseRecord.open(qmp);
  return record;
}

it('what a glue has noted is what its successor finds', () => {
  record = PauseRecord.open(qmp);
  expect(record.inherited).toBeUndefined();
  record.write(LONG);
  expect(successor().inherited).toEqual(LONG);
  record.write(SHORT);
  expect(successor().inherited).toEqual(SHORT);
});

it('a note that is shorter than the one before counts as soon as it is written', () => {
  record = PauseRecord.open(qmp);
  record.write(SHORT);
  // Killed before the rest of the longer one was cut off.
  appendFileSync(record.path, 'T00:00:00","configAddress":2147485712}\n');
  expect(successor().inherited).toEqual(SHORT);
});

it('a note that is taken back leaves no file', () => {
  record = PauseRecord.open(qmp);
  record.write(LONG);
  record.write(undefined);
  record.close();
  expect(() => readFileSync(`${qmp}.sriov-glue`)).toThrow('ENOENT');
});

it('a link in its place is refused, and what it names is left alone', () => {
  const victim = join(folder, 'victim');
  writeFileSync(victim, 'secret');
  symlinkSync(victim, `${qmp}.sriov-glue`);
  expect(() => PauseRecord.open(qmp)).toThrow('a symbolic link is there: remove it');
  expect(readFileSync(victim, 'utf8')).toBe('secret');
});

it('a note that finds no room is refused, with its file and what to do', () => {
  record = PauseRecord.open(qmp, () => {
    throw Object.assign(new Error('no space'), { code: 'ENOSPC', errno: -28, syscall: 'write' });
  });
  let refusal: unknown;
  try {
    record.write(SHORT);
  } catch (error) {
    refusal = error;
  }
  expect(refusal).toBeInstanceOf(UserError);
  expect(refusal).toMatchObject({
    message: expect.stringMatching(/pause-.*sriov-glue: .*ENOSPC/),
    fix: expect.stringContaining('make room'),
  });
});
