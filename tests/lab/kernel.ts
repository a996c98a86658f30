// Finds or fetches the guest's kernel and the folder of its modules: `$GUEST_KERNEL` comes first, else Debian
// trixie's newest stock kernel. Tests name others of Debian's.
import { existsSync } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import {
  type DebianArchive,
  type DebianRelease,
  type Suite,
  TRIXIE,
  TRIXIE_ARM64,
} from './debian-archive.ts';
import { LabError } from './lab-error.ts';
import type { LabPart } from './parts.ts';

const BOOKWORM: DebianRelease = {
  release: 'bookworm',
  architecture: 'amd64',
  suites: ['bookworm'],
};

/** Kernels of Debian's; the first is the guests' unless a test names another. */
export const DEBIAN_KERNELS = {
  trixie: kernelPart('kernel-1', 'the guest kernel', 'trixie', TRIXIE),
  bookworm: kernelPart('kernel-bookworm-1', "Debian 12's kernel", 'bookworm', BOOKWORM),
  backports: kernelPart(
    'kernel-backports-1',
    "the newest kernel of Debian's backports",
    'trixie-backports',
    TRIXIE,
  ),
} as const;
export type DebianKernel = keyof typeof DEBIAN_KERNELS;

/** One for guests of another processor. */
export const AARCH64_KERNEL = kernelPart(
  'kernel-arm64-1',
  "Debian's kernel for arm64",
  'trixie',
  TRIXIE_ARM64,
);

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
  // Debian 12's packages do not have it below /usr.
  const folders = [join(part, 'usr', 'lib', 'modules'), join(part, 'lib', 'modules')];
  const folder = folders.find((place) => existsSync(place)) ?? folders[0]!;
  const version = (await readdir(folder))[0] ?? '';
  const modules = join(folder, version);
  // Where a kernel comes in several packages, its image is among its modules.
  const places = [join(part, 'boot', `vmlinuz-${version}`), join(modules, 'vmlinuz')];
  return { kernel: places.find((place) => existsSync(place)) ?? places[0]!, modules };
}

function kernelPart(name: string, what: string, suite: Suite, from: DebianRelease): LabPart {
  const meta = `linux-image-${from.architecture}`;
  return { name, what, from, build: (archive, part) => unpackKernel(archive, part, meta, suite) };
}

/** Unpacks the kernel that the package `meta` of a suite stands for below `part`. */
async function unpackKernel(
  archive: DebianArchive,
  part: string,
  meta: string,
  suite: Suite,
): Promise<void> {
  const image = (await archive.dependenciesOf(meta, suite)).find((it) =>
    it.startsWith('linux-image-'),
  );
  if (image === undefined) {
    throw new LabError(
      meta,
      'it depends on no kernel package',
      'set GUEST_KERNEL and GUEST_MODULES',
    );
  }
  const pieces = await archive.dependenciesOf(image, suite);
  for (const name of [image, ...pieces.filter((it) => /^linux-(binary|modules)-/.test(it))]) {
    await archive.unpack(name, part, suite);
  }
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
