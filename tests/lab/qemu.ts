// Finds or fetches the lab's QEMU: one executable, 10.1 or later, that has vfio-user-pci. `$QEMU` comes first, then
// an installed one that is new enough, then Debian's backport, started through its own loader and libraries.
import { existsSync } from 'node:fs';
import { chmod, realpath, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DebianArchive } from './debian-archive.ts';
import { LabError } from './lab-error.ts';
import type { LabPart } from './parts.ts';
import { runProgram } from './run-program.ts';

const PROGRAM = 'qemu-system-x86_64';
const AARCH64_PROGRAM = 'qemu-system-aarch64';

/** The unpacked QEMU. */
export const QEMU_PART: LabPart = {
  name: 'qemu-2',
  what: 'QEMU with its libraries',
  // libstdc++6 is for the Node.js, util-linux for the GuestVm that runs in a virtual host.
  build: (archive, part) =>
    unpackQemu(archive, part, PROGRAM, ['qemu-system-x86', 'libstdc++6', 'util-linux']),
};

/** One for guests of another processor. */
export const AARCH64_QEMU_PART: LabPart = {
  name: 'qemu-aarch64-1',
  what: 'QEMU for aarch64',
  build: (archive, part) => unpackQemu(archive, part, AARCH64_PROGRAM, ['qemu-system-arm']),
};
const OLDEST = [10, 1] as const;

/** The QEMU that this machine or its user already has, or undefined. Throws when `$QEMU` names an unfit one. */
export async function ownQemu(
  environment: NodeJS.ProcessEnv = process.env,
): Promise<string | undefined> {
  const chosen = environment.QEMU;
  if (chosen) {
    const path = await findExecutable(chosen);
    const lack = path === undefined ? 'no such executable' : await lackOf(path);
    if (path === undefined || lack !== undefined) {
      throw new LabError(
        `QEMU=${chosen}`,
        lack ?? '',
        `name a ${PROGRAM} ${OLDEST.join('.')} or later, or unset QEMU to let the lab fetch one`,
      );
    }
    return path;
  }
  const installed = await findExecutable(PROGRAM);
  if (installed === undefined || (await lackOf(installed)) !== undefined) {
    return undefined;
  }
  return installed;
}

/** The executable of a QEMU unpacked in `part`. */
export function qemuInPart(part: string, program = PROGRAM): string {
  return join(part, program);
}

/** The same of AARCH64_QEMU_PART. */
export function aarch64QemuInPart(part: string): string {
  return qemuInPart(part, AARCH64_PROGRAM);
}

/** The folder below which the packages of QEMU and its libraries are unpacked in `part`. */
export function prefixInPart(part: string): string {
  return join(part, 'root');
}

/** Unpacks QEMU with its libraries below `part`, writes its starter, and tries it. */
async function unpackQemu(
  archive: DebianArchive,
  part: string,
  program: string,
  packages: readonly string[],
): Promise<void> {
  const prefix = prefixInPart(part);
  await archive.unpackWithDependencies(packages, prefix);
  // The C library's package relies on a link that Debian's base files bring.
  if (!existsSync(join(prefix, 'lib64'))) {
    await symlink('usr/lib64', join(prefix, 'lib64'));
  }
  const starter = qemuInPart(part, program);
  await writeFile(starter, starterOf(program));
  await chmod(starter, 0o755);
  const lack = await lackOf(starter);
  if (lack !== undefined) {
    throw new LabError(starter, lack, 'set QEMU to one that works, and report this');
  }
}

/** Finds itself, so that the folder can be renamed; the loader is told its libraries, so that the host's do not matter. */
const starterOf = (program: string): string => `#!/bin/sh
# Starts the QEMU unpacked beside this file with the libraries and firmware that came with it.
root=$(dirname "$(readlink -f "$0")")/root
libraries=$root/usr/lib/x86_64-linux-gnu
export QEMU_MODULE_DIR="$libraries/qemu"
exec "$root/usr/lib64/ld-linux-x86-64.so.2" --argv0 "$0" \\
  --library-path "$libraries:$libraries/pulseaudio" "$root/usr/bin/${program}" \\
  -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" -L "$root/usr/lib/ipxe/qemu" "$@"
`;

/** What makes the QEMU at `path` unfit for the lab, or undefined. */
async function lackOf(path: string): Promise<string | undefined> {
  const answer = await runProgram(path, ['--version']).catch((error: Error) => error);
  if (answer instanceof Error) {
    return answer.message;
  }
  const match = /version (\d+)\.(\d+)/.exec(answer.stdout.toString('utf8'));
  if (match === null) {
    return `does not tell its version: ${answer.stderr || 'no output'}`;
  }
  const [major, minor] = [Number(match[1]), Number(match[2])];
  if (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1])) {
    return `version ${major}.${minor} is older than ${OLDEST.join('.')}`;
  }
  const device = await runProgram(path, ['-device', 'vfio-user-pci,help']);
  return device.status === 0 ? undefined : 'it was built without the device vfio-user-pci';
}

/** The absolute path of `name`, looked up in PATH when it has no slash. */
async function findExecutable(name: string): Promise<string | undefined> {
  const folders = name.includes('/') ? [process.cwd()] : (process.env.PATH ?? '').split(':');
  for (const folder of folders) {
    const path = name.startsWith('/') ? name : join(folder, name);
    if (existsSync(path)) {
      return await realpath(path);
    }
  }
  return undefined;
}
