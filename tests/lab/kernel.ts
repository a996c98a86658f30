// Finds or fetches the guest's kernel and the folder of its modules: `$GUEST_KERNEL` comes first, else Debian
// trixie's newest stock kernel.
import { existsSync } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { DebianArchive } from './debian-archive.ts';
import { LabError } from './lab-error.ts';
import type { LabPart } from './parts.ts';

/** The unpacked kernel. */
export const KERNEL_PART: LabPart = {
  name: 'kernel-1',
  what: 'the guest kernel',
  build: unpackKernel,
};

/** A bootable kernel image and its `/lib/modules/VERSION` folder. */
export interface GuestKernel {
  readonly kernel: string;
  readonly modules: string;
}

/** The kernel that `$GUEST_KERNEL` (and `$GUEST_MODULES`) name, or undefined when they name none. */
export async function ownKernel(
  environment: NodeJS.ProcessEnv = process.env,
): Promise<GuestKernel | undefined> {
  const chosen = environment.GUEST_KERNEL;
  if (!chosen) {
    return undefined;
  }
  const kernel = resolve(chosen);
  const version = await versionOfImage(kernel);
  const folder = dirname(kernel);
  const places = environment.GUEST_MODULES
    ? [resolve(environment.GUEST_MODULES)]
    : [
        join(folder, 'modules'),
        join(folder, 'lib', 'modules', version),
        join(folder, '..', 'lib', 'modules', version),
        join(folder, '..', 'usr', 'lib', 'modules', version),
      ];
  const modules = places.find((place) => existsSync(join(place, 'kernel')));
  if (modules === undefined) {
    throw new LabError(
      `modules of GUEST_KERNEL=${chosen}`,
      `no folder "kernel" in ${places.join(', ')}`,
      `set GUEST_MODULES to the lib/modules/${version} folder of this kernel`,
    );
  }
  return { kernel, modules };
}

/** The kernel unpacked in `part`. */
export async function kernelInPart(part: string): Promise<GuestKernel> {
  const folder = join(part, 'usr', 'lib', 'modules');
  const version = (await readdir(folder))[0] ?? '';
  return { kernel: join(part, 'boot', `vmlinuz-${version}`), modules: join(folder, version) };
}

/** Unpacks the kernel that trixie's `linux-image-amd64` stands for below `part`. */
async function unpackKernel(archive: DebianArchive, part: string): Promise<void> {
  const meta = 'linux-image-amd64';
  const name = (await archive.dependenciesOf(meta)).find((it) => it.startsWith('linux-image-'));
  if (name === undefined) {
    throw new LabError(
      meta,
      'it depends on no kernel package',
      'set GUEST_KERNEL and GUEST_MODULES',
    );
  }
  await archive.unpack(name, part);
}

/** The version in an x86 boot image ("The Linux/x86 Boot Protocol", kernel_version at 0x20e). */
async function versionOfImage(path: string): Promise<string> {
  const refuse = (cause: string) =>
    new LabError(
      `GUEST_KERNEL=${path}`,
      cause,
      'name a bzImage (Debian: /boot/vmlinuz-VERSION), or unset it to let the lab fetch one',
    );
  const file = await open(path).catch((error: Error) => {
    throw refuse(error.message);
  });
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(0x8000), 0, 0x8000, 0);
    if (bytesRead < 0x400 || buffer.toString('latin1', 0x202, 0x206) !== 'HdrS') {
      throw refuse('it is no x86 Linux boot image');
    }
    const start = buffer.readUInt16LE(0x20e) + 0x200;
    return buffer.toString('latin1', start, start + 200).split(/[ \0]/)[0] ?? '';
  } finally {
    await file.close();
  }
}
