// A FUSE file system with what a hostile VMM may hand over: a file that can be opened and answers nothing else, ever, and
// files that can be opened and whose closing fails. It is a process of its own, because whoever opens, uses or closes a file
// waits for it. Needs root and /dev/fuse.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, openSync, read, rmdirSync, writeSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const DEVICE = '/dev/fuse';
const PROGRAM = resolve('dist/tests/fakes/hung-file-system.js');
const REQUEST_BYTES = 1 << 17;
const NOTHING = Buffer.alloc(0);

/** linux/fuse.h, `enum fuse_opcode`: what opening a file takes, and the question that a close asks and waits for. */
const Opcode = { lookup: 1, getAttr: 3, open: 14, flush: 25, init: 26 } as const;
const ROOT = 1;
const HUNG = 2;
/** Nodes and the error of their closing. */
const FAILING: Readonly<Record<number, 'EIO' | 'EINTR'>> = { 3: 'EIO', 4: 'EINTR' };
const REQUEST_HEADER_BYTES = 40;
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

  /** A new fd of the file that never answers; to be closed only after `end`. */
  open(): number {
    return openSync(join(this.#folder, 'file'), 'r+');
  }

  /** A new fd of a file whose closing fails so. */
  openFailing(error: 'EIO' | 'EINTR'): number {
    return openSync(join(this.#folder, error), 'r+');
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
        const answer = answerTo(request);
        if (answer !== undefined) {
          const { body = NOTHING, errno = 0 } = answer;
          writeSync(device, Buffer.concat([replyHeader(body.length, errno, request), body]));
        }
      }
      next();
    });
  next();
  // With whoever started it gone, nobody would end it.
  process.stdin.on('end', () => process.exit()).resume();
}

/** struct fuse_out_header. */
function replyHeader(bodyBytes: number, errno: number, request: Buffer): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt32LE(header.length + bodyBytes, 0);
  header.writeInt32LE(-errno, 4);
  request.copy(header, 8, 8, 16);
  return header;
}

interface Answer {
  readonly body?: Buffer;
  readonly errno?: number;
}

/** To a struct fuse_in_header and what follows it; undefined for what is never answered. */
function answerTo(request: Buffer): Answer | undefined {
  const opcode = request.readUInt32LE(4);
  const node = Number(request.readBigUInt64LE(16));
  const failure = FAILING[node];
  switch (opcode) {
    case Opcode.init: {
      const body = Buffer.alloc(64);
      body.writeUInt32LE(7, 0);
      body.writeUInt32LE(31, 4);
      body.writeUInt32LE(1 << 16, 20);
      return { body };
    }
    case Opcode.lookup: {
      const found = nodeCalled(request.toString('latin1', REQUEST_HEADER_BYTES).split('\0')[0]);
      const entry = Buffer.alloc(40);
      entry.writeBigUInt64LE(BigInt(found), 0);
      return { body: Buffer.concat([entry, attributes(found, FILE)]) };
    }
    case Opcode.getAttr:
      return node === ROOT
        ? { body: Buffer.concat([Buffer.alloc(16), attributes(ROOT, DIRECTORY)]) }
        : undefined;
    case Opcode.open:
      return { body: Buffer.alloc(16) };
    case Opcode.flush:
      return failure === undefined ? undefined : { errno: constants.errno[failure] };
    default:
      return undefined;
  }
}

function nodeCalled(name: string | undefined): number {
  const failing = Object.entries(FAILING).find(([, error]) => error === name);
  return failing === undefined ? HUNG : Number(failing[0]);
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
