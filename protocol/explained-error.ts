// The one shape of the errors that a person gets to see: the facts apart, and the sentence made of them. So whoever
// passes an error on (a reply, another thread, a line of a log, the terminal) takes the facts it needs.

import { getSystemErrorMap } from 'node:util';

/** What went wrong, in parts. */
export interface Explanation {
  /** The cause: "it is a virtual function". */
  readonly what: string;
  /** What a person can do about it: "use the PF". */
  readonly fix?: string | undefined;
  /** Linux's number for it, positive. */
  readonly errno?: number | undefined;
  /** What was asked of the kernel: "open", "VFIO_DEVICE_RESET". */
  readonly call?: string | undefined;
  /** What it was asked about, mostly a file. */
  readonly path?: string | undefined;
}

/** `open /dev/vfio/7: in use by pid 4`: everything but the fix. */
export function situationIn({ what, call, path }: Explanation): string {
  const where = [call, path].filter((part) => part !== undefined && part !== '').join(' ');
  return where === '' ? what : `${where}: ${what}`;
}

/** `open /dev/vfio/7: in use by pid 4; end it`. */
export function sentenceOf(explanation: Explanation): string {
  const { fix } = explanation;
  const situation = situationIn(explanation);
  return fix === undefined || fix === '' ? situation : `${situation}; ${fix}`;
}

/** An error that carries its explanation; `message` is the whole sentence. */
export abstract class ExplainedError extends Error implements Explanation {
  readonly what: string;
  readonly fix: string | undefined;
  readonly errno: number | undefined;
  readonly call: string | undefined;
  readonly path: string | undefined;

  constructor(explanation: Explanation) {
    super(sentenceOf(explanation));
    this.what = explanation.what;
    this.fix = explanation.fix;
    this.errno = explanation.errno;
    this.call = explanation.call;
    this.path = explanation.path;
  }
}

/** A system call that Node made and that failed, as an explanation with the errno's name; undefined for other errors. */
export function systemErrorIn(error: unknown): (Explanation & { code: string }) | undefined {
  if (!(error instanceof Error)) {
    return undefined;
  }
  const { code, errno, syscall, path, address, port } = error as Error &
    Partial<Record<string, unknown>>;
  if (typeof code !== 'string' || typeof errno !== 'number' || typeof syscall !== 'string') {
    return undefined;
  }
  const [, text = 'refused'] = getSystemErrorMap().get(errno) ?? [];
  // A socket's is its `address`, with a port above 0 where it is none of a path; a spawn has its program in `syscall` already.
  const named = path ?? (Number(port) > 0 ? `${address}:${port}` : address);
  return {
    what: `${text} (${code})`,
    errno: Math.abs(errno),
    call: syscall,
    path: typeof named === 'string' && !syscall.endsWith(` ${named}`) ? named : undefined,
    code,
  };
}

/** What an error of any kind says of the situation, for a sentence that has its own fix. */
export function situationOf(error: unknown): string {
  if (error instanceof ExplainedError) {
    return situationIn(error);
  }
  const system = systemErrorIn(error);
  if (system !== undefined) {
    return situationIn(system);
  }
  return error instanceof Error ? error.message : String(error);
}

/** What helps where the host is out of something, whatever was asked of it, by the errno's name. */
export const SHORTAGE_FIXES: Readonly<Record<string, string>> = {
  ENOSPC: 'make room there',
  EDQUOT: 'the quota is used up: delete something of yours there',
  EMFILE: 'raise its limit on open files (`ulimit -n`, or LimitNOFILE= of a systemd unit)',
  ENFILE: 'this host has too many open files: end what holds them, or raise fs.file-max',
  ENOMEM: 'this host has too little memory: end what needs it',
};

/** What an error knows to do about it; undefined where it does not. */
export function fixOf(error: unknown): string | undefined {
  return error instanceof ExplainedError
    ? error.fix
    : SHORTAGE_FIXES[systemErrorIn(error)?.code ?? ''];
}
