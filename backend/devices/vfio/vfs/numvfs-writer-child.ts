// The process that reads and writes `sriov_numvfs`, started before any VFIO file is open. It never holds a VF: a process
// that does, and writes the 0 itself, waits for itself forever and cannot be killed. It reads one request a line from
// its standard input, answers each with a line, and ends with its input.
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { answer } from '../helper-answer.ts';
import type { WriterAnswer, WriterRequest } from './numvfs-writer.ts';

function carryOut({ path, value }: WriterRequest): { text: string } {
  if (value === undefined) {
    return { text: readFileSync(path, 'utf8').trim() };
  }
  const fd = openSync(path, 'w');
  try {
    // In one write: the kernel acts on each.
    writeSync(fd, value);
  } finally {
    closeSync(fd);
  }
  return { text: value };
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line) as WriterRequest;
  let done: WriterAnswer;
  try {
    done = { id: request.id, ...carryOut(request) };
  } catch (error) {
    done = { id: request.id, errno: -((error as NodeJS.ErrnoException).errno ?? -5) };
  }
  answer(done);
}
