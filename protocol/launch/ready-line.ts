// The one line that `serve` prints on standard output when clients can connect, for people and for launchers:
// `ready socket=PATH vf-sockets=FOLDER total-vfs=N pf-bars=LIST vf-bars=LIST`, with `fd=N` where a connected socket is
// served, and without vf-sockets where there are none. A LIST is `INDEX:BYTES:KIND,…` of memory BARs; KIND is 32 or 64
// (bits of an address), and p where prefetchable. Pure: written by the backend, read by launchers.
import { UserError } from '../user-error.ts';
import { parseWholeNumber } from './option-values.ts';

const LAST_BAR = 5;
/** TotalVFs is a register of 16 bits. */
const MOST_VFS = 0xffff;

/** A memory BAR, of the PF or of each VF; `size` in bytes. */
export interface MemoryBar {
  readonly index: number;
  readonly size: number;
  readonly is64Bit: boolean;
  readonly prefetchable: boolean;
}

/** What the line says. */
export interface Ready {
  /** Where the PF is served: a path, or the number of the fd that `serve` was given. */
  readonly socket: { readonly path: string } | { readonly fd: number };
  /** The folder of the VFs' sockets, where each VF has one. */
  readonly vfSocketsFolder?: string | undefined;
  readonly totalVfs: number;
  readonly pfBars: readonly MemoryBar[];
  readonly vfBars: readonly MemoryBar[];
}

/** A backend that a launcher can give to a QEMU: it has a path, and a socket for each VF's slot. */
export interface ReadyBackend {
  readonly socketPath: string;
  readonly vfSocketsFolder: string;
  readonly totalVfs: number;
  readonly vfBars: readonly MemoryBar[];
  /** Where the backend tells them. */
  readonly pfBars?: readonly MemoryBar[];
}

/** The line, without its line end. */
export function formatReadyLine({ socket, vfSocketsFolder, ...ready }: Ready): string {
  const pairs = [
    'fd' in socket ? `fd=${socket.fd}` : `socket=${socket.path}`,
    ...(vfSocketsFolder === undefined ? [] : [`vf-sockets=${vfSocketsFolder}`]),
    `total-vfs=${ready.totalVfs}`,
    `pf-bars=${ready.pfBars.map(formatBar).join(',')}`,
    `vf-bars=${ready.vfBars.map(formatBar).join(',')}`,
  ];
  return `ready ${pairs.join(' ')}`;
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
      name === 'vf-sockets' || name === 'socket'
        ? 'start it with --socket-path and --vf-sockets'
        : 'use a backend and a launcher of the same version',
    );
  };
  const totalVfs = parseWholeNumber(field('total-vfs'), 1, MOST_VFS);
  if (totalVfs === undefined) {
    throw new UserError(
      `the backend's line "${line}" has no number of VFs as total-vfs=`,
      'give the whole line as the backend printed it',
    );
  }
  const pfBars = fields.get('pf-bars');
  return {
    socketPath: field('socket'),
    vfSocketsFolder: field('vf-sockets'),
    totalVfs,
    vfBars: parseBars(field('vf-bars')),
    ...(pfBars === undefined ? {} : { pfBars: parseBars(pfBars) }),
  };
}

/** Reads `INDEX:BYTES:KIND,…`; empty for no BARs. Throws UserError. */
export function parseBars(text: string): MemoryBar[] {
  const taken = new Set<number>();
  return (text === '' ? [] : text.split(',')).map((described) => {
    const bar = parseBar(described);
    const indexes = bar.is64Bit ? [bar.index, bar.index + 1] : [bar.index];
    const other = indexes.find((index) => index > LAST_BAR || taken.has(index));
    if (other !== undefined) {
      throw new UserError(
        `"${described}" needs BAR ${other}, which ${other > LAST_BAR ? 'there is not' : 'another BAR has'}`,
        `give each BAR an index of its own, 0 to ${LAST_BAR}; a 64-bit BAR has the next one as well`,
        2,
      );
    }
    for (const index of indexes) {
      taken.add(index);
    }
    return bar;
  });
}

function parseBar(text: string): MemoryBar {
  const match = /^([0-5]):(\d+):(32|64)(p?)$/.exec(text);
  const size = Number(match?.[2]);
  if (match === null || size < 16 || !Number.isInteger(Math.log2(size))) {
    throw new UserError(
      `"${text}" describes no BAR`,
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
}

/** `0:16384:64p`. */
function formatBar({ index, size, is64Bit, prefetchable }: MemoryBar): string {
  return `${index}:${size}:${is64Bit ? 64 : 32}${prefetchable ? 'p' : ''}`;
}
