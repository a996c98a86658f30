// What `trace` makes of a file that is damaged, cut off or empty: as much as there is, one line that says so, exit code 1.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MemoryTrace } from '../unit/trace/ring.ts';
import { OwnFolder } from './own-folder.ts';

const ACCESSES = 4000;
const WAYS: readonly (readonly [way: string, option?: string])[] = [
  ['printed'],
  ['as JSON', '--json'],
  ['followed', '--follow'],
  ['counted', '--summary'],
  ['judged', '--explain'],
  ['compared', '--diff=trace'],
];
const DRAWINGS = ['html', 'perfetto'];

let folder: OwnFolder;
let path: string;

beforeEach(() => {
  folder = new OwnFolder();
  path = folder.file('trace');
});
afterEach(() => folder.remove());

/** Accesses in blocks, the first of which has 100 bytes that were overwritten. */
function damaged(): Buffer {
  const trace = new MemoryTrace({ blocks: 4 });
  for (let i = 0; i < ACCESSES; i++) {
    trace.recorder.access(0, false, 7, 0, Uint8Array.of(0));
  }
  const bytes = readFileSync(trace.save());
  const block = bytes.indexOf('BLCK');
  return bytes.fill(0xff, block + 1000, block + 1100);
}

function refusal(option?: string): string {
  const { status, stderr } = folder.run(
    'trace',
    'trace',
    ...(option === undefined ? [] : [option]),
  );
  expect(status).toBe(1);
  expect(stderr).toMatch(/^vfio-user-sriov: [^\n]+\n$/);
  return stderr;
}

describe('a damaged recording', () => {
  beforeEach(() => writeFileSync(path, damaged()));

  it.each(WAYS)('%s', (_way, option) => {
    expect(refusal(option)).toContain('trace was read as far as it goes: block 0 ends at 1006');
  });

  it.each(DRAWINGS)('is drawn by --%s', (drawing) => {
    expect(refusal(`--${drawing}=drawn`)).toContain('was read as far as it goes');
    expect(readFileSync(folder.file('drawn')).length).toBeGreaterThan(ACCESSES);
  });
});

describe('an empty recording', () => {
  beforeEach(() => writeFileSync(path, ''));

  it.each([...WAYS, ...DRAWINGS.map((each) => [each, `--${each}=drawn`] as const)])(
    '%s',
    (_way, option) => {
      expect(refusal(option)).toContain('trace: it is not a trace');
      expect(existsSync(folder.file('drawn'))).toBe(false);
    },
  );
});
