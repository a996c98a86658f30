// Asks a QEMU program whether it can take a vfio-user device: 10.1 or later, built with vfio-user-pci.
import { execFile } from 'node:child_process';
import { UserError } from '../../protocol/user-error.ts';

const OLDEST = { major: 10, minor: 1 };
const OLDEST_TEXT = `${OLDEST.major}.${OLDEST.minor}`;
const TIME_LIMIT_MILLISECONDS = 20_000;

/** Rejects with UserError where `program` cannot serve. */
export async function checkQemu(program: string): Promise<void> {
  const [version, devices] = await Promise.all([
    output(program, ['--version']),
    output(program, ['-device', 'help']),
  ]);
  const match = /version (\d+)\.(\d+)/.exec(version);
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
  if (!devices.includes('vfio-user-pci')) {
    throw new UserError(
      `${program} was built without the device vfio-user-pci`,
      `install a QEMU ${OLDEST_TEXT} or later that has it (Debian's has)`,
    );
  }
}

function output(program: string, args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { timeout: TIME_LIMIT_MILLISECONDS, maxBuffer: 16 * 1024 * 1024 };
    execFile(program, args, options, (error, stdout, stderr) => {
      if (error?.code === 'ENOENT' || error?.code === 'EACCES') {
        const cause = error.code === 'ENOENT' ? 'no such program' : 'it cannot be executed';
        reject(
          new UserError(`${program}: ${cause}`, 'install QEMU, or give its full path after --'),
        );
      } else {
        // A program that fails here is told by what it did not say.
        resolve(`${stdout}\n${stderr}`);
      }
    });
  });
}
