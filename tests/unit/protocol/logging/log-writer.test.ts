import { beforeEach, describe, expect, it } from 'vitest';
import { Errno } from '../../../../protocol/errno.ts';
import { LogWriter } from '../../../../protocol/logging/log-writer.ts';
import { ManualClock } from '../../../fakes/manual-clock.ts';

const RETRY_MILLISECONDS = 50;

let clock: ManualClock;
let written: string;
/** Bytes that the output has room for, or -errno. */
let room: number;
let writer: LogWriter;

beforeEach(() => {
  clock = new ManualClock();
  written = '';
  room = 1000;
  writer = new LogWriter({
    output: (bytes) => {
      if (room <= 0) {
        return room === 0 ? -Errno.EAGAIN : room;
      }
      const count = Math.min(room, bytes.length);
      written += new TextDecoder().decode(bytes.subarray(0, count));
      room -= count;
      return count;
    },
    clock,
    lossLine: (count) => `(${count} lost)\n`,
    maxWaitingBytes: 30,
  });
});

describe('a log whose reader', () => {
  it('reads has every line at once', () => {
    writer.write('one\n');
    writer.write('two\n');
    expect(written).toBe('one\ntwo\n');
    expect(clock.pending).toBe(0);
  });

  it('is slow has every line later, each in one piece', () => {
    room = 6;
    writer.write('one\n');
    writer.write('two\n');
    expect(written).toBe('one\ntw');
    room = 1000;
    clock.elapse(RETRY_MILLISECONDS);
    expect(written).toBe('one\ntwo\n');
    expect(clock.pending).toBe(0);
  });

  it.each([
    ['does not read', 0],
    ['has a full disk', -Errno.ENOSPC],
    ['has gone', -Errno.EPIPE],
  ])('%s costs lines, which are counted where they are missing', (_what, failure) => {
    room = failure;
    for (let i = 0; i < 10; i++) {
      writer.write(`line ${i}...\n`);
    }
    expect(written).toBe('');
    room = 1000;
    clock.elapse(RETRY_MILLISECONDS);
    writer.write('more\n');
    expect(written).toBe('line 0...\nline 1...\nline 2...\n(7 lost)\nmore\n');
  });

  it('is slow has no line after a lost one before it is told of the loss', () => {
    room = 0;
    writer.write('line of twenty-five bytes\n');
    writer.write('too long\n');
    writer.write('x\n');
    room = 1000;
    clock.elapse(RETRY_MILLISECONDS);
    writer.write('more\n');
    expect(written).toBe('line of twenty-five bytes\n(2 lost)\nmore\n');
  });

  it('never reads costs one timer, and no more memory', () => {
    room = 0;
    for (let i = 0; i < 1000; i++) {
      writer.write('again\n');
      clock.elapse(10);
    }
    expect(clock.pending).toBe(1);
    expect(writer.drain()).toBe(false);
  });
});
