// The process that reads and writes `sriov_numvfs`, started before any VFIO file is open. It never holds a VF: a process
// that does, and writes the 0 itself, waits for itself forever and cannot be killed. It reads one request a line from
// its standard input, answers each with a line, and ends with its input.
import { createInterface } from 'node:readline';
import { answer } from '../helper-answer.ts';
import { accessNumVfs } from './numvfs-attribute.ts';
import type { WriterAnswer, WriterRequest } from './numvfs-writer.ts';

for await (const line of createInterface({ input: process.stdin })) {
  const { id, path, count } = JSON.parse(line) as WriterRequest;
  answer({ id, ...accessNumVfs(path, count) } satisfies WriterAnswer);
}
