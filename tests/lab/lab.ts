// The lab: a QEMU, a guest kernel with its modules, and a static busybox, fetched once and cached. Tests, the demo
// and the lab's command line call `lab()`; what is cached is given at once, without network.
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { cachedPart, cacheFolder, withLock } from './cache.ts';
import { DebianArchive } from './debian-archive.ts';
import { KERNEL_PART, kernelInPart, ownKernel, unpackKernel } from './kernel.ts';
import { step } from './progress.ts';
import { ownQemu, prefixInPart, QEMU_PART, qemuInPart, unpackQemu } from './qemu.ts';

/** Absolute paths of what is needed to boot a guest. */
export interface Lab {
  /** An executable `qemu-system-x86_64`, 10.1 or later. */
  readonly qemu: string;
  /** A bzImage. */
  readonly kernel: string;
  /** The kernel's `/lib/modules/VERSION` folder. */
  readonly modules: string;
  /** A static busybox. */
  readonly busybox: string;
}

const BUSYBOX_PART = 'busybox-1';
/** What guests use beside busybox. */
const GUEST_PACKAGES = ['pciutils', 'nvme-cli', 'e2fsprogs', 'fio'];
const TOOLS_PART = 'guest-tools-2';
const COMPILER_PART = 'compiler-1';

/** Sets the lab up where something is missing, and gives its paths. Throws LabError. */
export async function lab(): Promise<Lab> {
  const [qemu, kernel] = [await ownQemu(), await ownKernel()];
  const parts = [BUSYBOX_PART];
  if (qemu === undefined) {
    parts.push(QEMU_PART);
  }
  if (kernel === undefined) {
    parts.push(KERNEL_PART);
  }
  await ensureParts(parts);
  const folder = cacheFolder();
  return {
    qemu: qemu ?? qemuInPart(join(folder, QEMU_PART)),
    ...(kernel ?? (await kernelInPart(join(folder, KERNEL_PART)))),
    busybox: join(folder, BUSYBOX_PART, 'usr', 'bin', 'busybox'),
  };
}

/** A folder that holds Debian's QEMU and the libraries it needs, laid out as below `/`; for virtual hosts. */
export async function qemuPrefix(): Promise<string> {
  await ensureParts([QEMU_PART]);
  return prefixInPart(join(cacheFolder(), QEMU_PART));
}

/** A folder that holds a C compiler and what it links programs for guests with, laid out as below `/`. */
export async function compilerPrefix(): Promise<string> {
  await ensureParts([COMPILER_PART]);
  return join(cacheFolder(), COMPILER_PART);
}

/** A folder that holds Debian's tools for guests with their libraries, laid out as below `/`. */
export async function guestToolsPrefix(): Promise<string> {
  await ensureParts([TOOLS_PART]);
  return join(cacheFolder(), TOOLS_PART);
}

async function ensureParts(parts: readonly string[]): Promise<void> {
  const folder = cacheFolder();
  const isMissing = (part: string) => !existsSync(join(folder, part));
  if (!parts.some(isMissing)) {
    return;
  }
  await withLock(folder, async () => {
    // Another run may have fetched them while this one waited for the lock.
    const missing = parts.filter(isMissing);
    if (missing.length === 0) {
      return;
    }
    const aptFolder = join(folder, '.apt');
    await rm(aptFolder, { recursive: true, force: true });
    try {
      const archive = await DebianArchive.open(aptFolder);
      for (const part of missing) {
        const { what, build } = RECIPES[part]!;
        await step(`fetching ${what}`, () =>
          cachedPart(folder, part, (target) => build(archive, target)),
        );
      }
    } finally {
      await rm(aptFolder, { recursive: true, force: true });
    }
  });
}

const RECIPES: Record<
  string,
  { what: string; build: (archive: DebianArchive, target: string) => Promise<void> }
> = {
  [BUSYBOX_PART]: {
    what: 'busybox',
    build: (archive, target) => archive.unpack('busybox-static', target),
  },
  [TOOLS_PART]: {
    what: 'tools for guests',
    build: (archive, target) => archive.unpackWithDependencies(GUEST_PACKAGES, target),
  },
  [COMPILER_PART]: { what: 'a C compiler for guest programs', build: unpackCompiler },
  [QEMU_PART]: { what: 'QEMU with its libraries', build: unpackQemu },
  [KERNEL_PART]: { what: 'the guest kernel', build: unpackKernel },
};

async function unpackCompiler(archive: DebianArchive, target: string): Promise<void> {
  await archive.unpackWithDependencies(['tcc'], target);
  // Of musl only what programs are linked with: what its package depends on is another compiler.
  await archive.unpack('musl-dev', target);
  await archive.unpack('linux-libc-dev', target);
}
