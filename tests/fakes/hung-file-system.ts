// A FUSE file system with one file that can be opened and answers nothing else, ever: what a hostile VMM may hand over. It is
// a process of its own, because whoever opens, uses or closes that file waits for it. Needs root and /dev/fuse.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, openSync, read, rmdirSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const DEVICE = '/dev/fuse';
const PROGRAM = resolve('dist/tests/fakes/hung-file-system.js');
const REQUEST_BYTES = 1 << 17;

/** linux/fuse.h, `enum fuse_opcode`: what opening a file takes. */
const Opcode = { lookup: 1, getAttr: 3, open: 14, init: 26 } as const;
const ROOT = 1;
const DIRECTORY = 0o40755;
const FILE = 0o100666;

export class HungFileSystem {
  readonly #folder: string;
  readonly #child: ChildProcess;

  /** Undefined where this user may not mount one. */
  static async mount(): Promise<HungFileSystem | undefined> {
    if (process.getuid?.() !== 0 || !existsSync(DEVICE)) {
      return undefined;
    }
    const folder = mkdtempSync(join(tmpdir(), 'vfu-'));
    const child = spawn(process.execPath, [PROGRAM, folder], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const [line] = await Promise.race([once(child.stdout!, 'data'), once(child, 'exit')]);
    if (String(line) !== 'mounted\n') {
      child.kill('SIGKILL');
      rmdirSync(folder);
      return undefined;
    }
    return new HungFileSystem(folder, child);
  }

  private constructor(folder: string, child: ChildProcess) {
    this.#folder = folder;
    this.#child = child;
  }

  /** A new fd of the file; to be closed only after `end`. */
  open(): number {
    return openSync(join(this.#folder, 'file'), 'r+');
  }

  /** Everybody who waits for the file gets an error. */
  async end(): Promise<void> {
    const exit = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exit;
    spawnSync('umount', ['--lazy', this.#folder]);
    rmdirSync(this.#folder);
  }
}

function serve(folder: string): void {
  const device = openSync(DEVICE, 'r+');
  const options = 'fd=3,rootmode=40000,user_id=0,group_id=0,allow_other';
  const { status } = spawnSync('mount', ['-i', '-t', 'fuse', '-o', options, 'hung', folder], {
    stdio: ['ignore', 'ignore', 'ignore', device],
  });
  process.stdout.write(status === 0 ? 'mounted\n' : 'refused\n');
  const request = Buffer.alloc(REQUEST_BYTES);
  const next = (): void =>
    read(device, request, 0, request.length, null, (error) => {
      if (error === null) {
        const body = answerTo(request.readUInt32LE(4), request.readBigUInt64LE(16));
        if (body !== undefined) {
          writeSync(device, Buffer.concat([replyHeader(body.length, request), body]));
        }
      }
      next();
    });
  next();
  // With whoever started it gone, nobody would end it.
  process.stdin.on('end', () => process.exit()).resume();
}

/** struct fuse_out_header. */
function replyHeader(bodyBytes: number, request: Buffer): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt32LE(header.length + bodyBytes, 0);
  request.copy(header, 8, 8, 16);
  return header;
}

function answerTo(opcode: number, node: bigint): Buffer | undefined {
  switch (opcode) {
    case Opcode.init: {
      const body = Buffer.alloc(64);
      body.writeUInt32LE(7, 0);
      body.writeUInt32LE(31, 4);
      body.writeUInt32LE(1 << 16, 20);
      return body;
    }
    case Opcode.lookup: {
      const entry = Buffer.alloc(40);
      entry.writeBigUInt64LE(2n, 0);
      return Buffer.concat([entry, attributes(2, FILE)]);
    }
    case Opcode.getAttr:
      return node === BigInt(ROOT)
        ? Buffer.concat([Buffer.alloc(16), attributes(ROOT, DIRECTORY)])
        : undefined;
    case Opcode.open:
      return Buffer.alloc(16);
    default:
      return undefined;
  }
}

/** struct fuse_attr. */
function attributes(inode: number, mode: number): Buffer {
  const bytes = Buffer.alloc(88);
  bytes.writeBigUInt64LE(BigInt(inode), 0);
  bytes.writeBigUInt64LE(1n << 30n, 8);
  bytes.writeUInt32LE(mode, 60);
  bytes.writeUInt32LE(1, 64);
  bytes.writeUInt32LE(4096, 80);
  return bytes;
}

if (process.argv[1] === PROGRAM) {
  serve(process.argv[2]!);
}
