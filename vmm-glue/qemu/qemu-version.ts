// Asks a QEMU program whether it can take a vfio-user device: 10.1 or later, built with vfio-user-pci.
import { execFile } from 'node:child_process';
import { UserError } from '../../protocol/user-error.ts';

/** What a launcher needs to know of a QEMU program that can serve. */
export interface QemuProgram {
  /** It takes `-run-with exit-with-parent=on`. */
  readonly exitsWithParent: boolean;
  /** It was built with pxb-pcie. */
  readonly knowsExpanderBus: boolean;
}

const OLDEST = { major: 10, minor: 1 };
const OLDEST_TEXT = `${OLDEST.major}.${OLDEST.minor}`;
const TIME_LIMIT_MILLISECONDS = 20_000;

/** Rejects with UserError where `program` cannot serve, and when `signal` gives it up. */
export async function checkQemu(program: string, signal: AbortSignal): Promise<QemuProgram> {
  const end = new AbortController();
  const either = AbortSignal.any([signal, end.signal]);
  try {
    const [help, devices] = await Promise.all([
      output(program, ['--help'], either),
      output(program, ['-device', 'help'], either),
    ]);
    checkVersion(program, help.text);
    checkDevices(program, devices);
    return {
      exitsWithParent: help.text.includes('exit-with-parent'),
      knowsExpanderBus: devices.text.includes('"pxb-pcie"'),
    };
  } finally {
    // Of two questions one may still be asked when the other has failed.
    end.abort();
  }
}

/** QEMU's help begins with its version. */
function checkVersion(program: string, help: string): void {
  const match = /version (\d+)\.(\d+)/.exec(help);
  if (match === null) {
    throw new UserError(
      `${program}: it does not say what QEMU it is`,
      'write the QEMU program after --, such as qemu-system-x86_64',
    );
  }
  const [major, minor] = [Number(match[1]), Number(match[2])];
  if (major < OLDEST.major || (major === OLDEST.major && minor < OLDEST.minor)) {
    throw new UserError(
      `${program} is QEMU ${major}.${minor}: it knows no vfio-user devices`,
      `install QEMU ${OLDEST_TEXT} or later (on Debian 13: from trixie-backports)`,
    );
  }
}

function checkDevices(program: string, { text, status }: Output): void {
  if (text.includes('vfio-user-pci')) {
    return;
  }
  if (status !== 0) {
    const lastLine = text.trim().split('\n').at(-1)!;
    throw new UserError(
      `${program} -device help: it failed with "${lastLine}" (exit status ${status})`,
      'run that by hand, and mend what it says',
    );
  }
  throw new UserError(
    `${program} was built without the device vfio-user-pci`,
    `install a QEMU ${OLDEST_TEXT} or later that has it (Debian's has)`,
  );
}

interface Output {
  /** Standard output, then standard error. */
  readonly text: string;
  /** Null where a signal ended it. */
  readonly status: number | null;
}

function output(program: string, args: string[], signal: AbortSignal): Promise<Output> {
  return new Promise((resolve, reject) => {
    const options = { timeout: TIME_LIMIT_MILLISECONDS, maxBuffer: 16 * 1024 * 1024, signal };
    const child = execFile(program, args, options, (error, stdout, stderr) => {
      if (error?.code === 'ENOENT' || error?.code === 'EACCES') {
        const cause = error.code === 'ENOENT' ? 'no such program' : 'it cannot be executed';
        reject(
          new UserError(`${program}: ${cause}`, 'install QEMU, or give its full path after --'),
        );
      } else if (signal.aborted) {
        reject(signal.reason);
      } else if (error?.killed === true) {
        reject(
          new UserError(
            `${program} ${args.join(' ')}: no answer within ${TIME_LIMIT_MILLISECONDS / 1000} s`,
            'look whether this program waits for something, or the machine is out of CPU time or memory',
          ),
        );
      } else {
        resolve({ text: `${stdout}\n${stderr}`, status: child.exitCode });
      }
    });
  });
}
