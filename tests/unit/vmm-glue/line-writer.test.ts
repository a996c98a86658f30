// Lines that are sent in one turn go out in one piece, in their order.
import { Writable } from 'node:stream';
import { expect, it } from 'vitest';
import { sendLine } from '../../../vmm-glue/qemu/line-writer.ts';

it('lines of one turn go out in one piece, before anything that waits for the turn to end', async () => {
  const pieces: string[] = [];
  const socket = new Writable({
    decodeStrings: false,
    writev(chunks, done) {
      pieces.push(chunks.map(({ chunk }) => chunk).join(''));
      done();
    },
  });
  sendLine(socket, 'query-status');
  sendLine(socket, 'stop');
  expect(pieces).toEqual([]);
  await Promise.resolve();
  expect(pieces).toEqual(['query-status\nstop\n']);
  sendLine(socket, 'cont');
  await Promise.resolve();
  expect(pieces).toEqual(['query-status\nstop\n', 'cont\n']);
});
