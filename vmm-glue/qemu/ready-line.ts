// The one line that `serve` prints when it is ready, read back: where its sockets are and what its VFs look like.
// `ready socket=PATH vf-sockets=DIR total-vfs=N vf-bars=INDEX:BYTES:KIND,…`; KIND is 32, 32p, 64 or 64p (p: prefetchable).
import { UserError } from '../../protocol/user-error.ts';
import type { VfBarShape } from './topology.ts';

/** What a QEMU command line needs to know of a backend. */
export interface ReadyBackend {
  readonly socketPath: string;
  readonly vfSocketsFolder: string;
  readonly totalVfs: number;
  readonly vfBars: readonly VfBarShape[];
  /** Where the backend tells them. */
  readonly pfBars?: readonly VfBarShape[];
}

/** Reads the line, or gives undefined where it is another. Throws UserError where it lacks something. */
export function parseReadyLine(line: string): ReadyBackend | undefined {
  if (!/^ready\b/.test(line)) {
    return undefined;
  }
  // Paths may hold spaces, so a value ends where the next key begins.
  const fields = new Map(
    line
      .trim()
      .split(/ (?=[a-z-]+=)/)
      .slice(1)
      .map((field): [string, string] => {
        const at = field.indexOf('=');
        return [field.slice(0, at), field.slice(at + 1)];
      }),
  );
  const field = (name: string): string => {
    const value = fields.get(name);
    if (value !== undefined) {
      return value;
    }
    throw new UserError(
      `the backend's line "${line}" has no ${name}=`,
      'use a backend and a launcher of the same version',
    );
  };
  const pfBars = fields.get('pf-bars');
  return {
    socketPath: field('socket'),
    vfSocketsFolder: field('vf-sockets'),
    totalVfs: Number(field('total-vfs')),
    vfBars: parseBars(field('vf-bars')),
    ...(pfBars === undefined ? {} : { pfBars: parseBars(pfBars) }),
  };
}

/** Reads `INDEX:BYTES:KIND,…`; empty for no BARs. Throws UserError. */
export function parseBars(text: string): VfBarShape[] {
  if (text === '') {
    return [];
  }
  return text.split(',').map((bar) => {
    const match = /^([0-5]):(\d+):(32|64)(p?)$/.exec(bar);
    const size = Number(match?.[2]);
    if (match === null || size < 16 || !Number.isInteger(Math.log2(size))) {
      throw new UserError(
        `"${bar}" describes no BAR`,
        'write INDEX:BYTES:KIND with a power of two and a KIND of 32, 32p, 64 or 64p, such as 0:16384:64p',
        2,
      );
    }
    return {
      index: Number(match[1]),
      size,
      is64Bit: match[3] === '64',
      prefetchable: match[4] === 'p',
    };
  });
}
