// The lab: a QEMU, a guest kernel with its modules, and a static busybox, fetched once and cached. Tests, the demo
// and the lab's command line call `lab()`; what is cached is given at once, without network.
import { join } from 'node:path';
import { type DebianArchive, TRIXIE_ARM64 } from './debian-archive.ts';
import {
  AARCH64_KERNEL,
  DEBIAN_KERNELS,
  type DebianKernel,
  kernelInPart,
  ownKernel,
} from './kernel.ts';
import { ensureParts, folderOf, type LabPart, partFolder } from './parts.ts';
import {
  AARCH64_QEMU_PART,
  aarch64QemuInPart,
  ownQemu,
  prefixInPart,
  QEMU_PART,
  qemuInPart,
} from './qemu.ts';
import { relocatePrograms } from './relocated-programs.ts';

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
  /** The same for the guest, whose processor may be another. */
  readonly guestBusybox: string;
}

/** The guest's processor, as QEMU calls it. */
export type Processor = 'x86_64' | 'aarch64';

const BUSYBOX_PART: LabPart = {
  name: 'busybox-1',
  what: 'busybox',
  build: (archive, target) => archive.unpack('busybox-static', target),
};
/** What guests use beside busybox. */
const GUEST_PACKAGES = ['pciutils', 'nvme-cli', 'e2fsprogs', 'fio', 'ethtool'];
const AARCH64_BUSYBOX_PART: LabPart = {
  name: 'busybox-arm64-1',
  what: 'busybox for arm64',
  from: TRIXIE_ARM64,
  build: (archive, target) => archive.unpack('busybox-static', target),
};
const TOOLS_PART: LabPart = {
  name: 'guest-tools-3',
  what: 'tools for guests',
  build: (archive, target) => archive.unpackWithDependencies(GUEST_PACKAGES, target),
};
const COMPILER_PART: LabPart = {
  name: 'compiler-1',
  what: 'a C compiler for guest programs',
  build: unpackCompiler,
};

const AARCH64_COMPILER_PART: LabPart = {
  name: 'compiler-aarch64-1',
  what: 'a C compiler for aarch64 guests',
  build: async (archive, target) => {
    const packages = ['gcc-14-aarch64-linux-gnu', 'libc6-dev-arm64-cross'];
    await archive.unpackWithDependencies(packages, target);
    await relocatePrograms(target, ['usr/bin', 'usr/libexec/gcc-cross']);
  },
};

/**
 * Sets the lab up where something is missing, and gives its paths: with the kernel of that name, or with the one that this
 * machine's user has chosen, or trixie's. Throws LabError.
 */
export async function lab(kernelName?: DebianKernel): Promise<Lab> {
  const [qemu, kernel] = [
    await ownQemu(),
    kernelName === undefined ? await ownKernel() : undefined,
  ];
  const kernelPart = DEBIAN_KERNELS[kernelName ?? 'trixie'];
  const parts = [BUSYBOX_PART];
  if (qemu === undefined) {
    parts.push(QEMU_PART);
  }
  if (kernel === undefined) {
    parts.push(kernelPart);
  }
  await ensureParts(parts);
  return {
    qemu: qemu ?? qemuInPart(folderOf(QEMU_PART)),
    ...(kernel ?? (await kernelInPart(folderOf(kernelPart)))),
    busybox: busyboxIn(BUSYBOX_PART),
    guestBusybox: busyboxIn(BUSYBOX_PART),
  };
}

/** The same for guests with an aarch64 processor. Throws LabError. */
export async function aarch64Lab(): Promise<Lab> {
  const parts = [AARCH64_QEMU_PART, BUSYBOX_PART, AARCH64_KERNEL, AARCH64_BUSYBOX_PART];
  await ensureParts(parts);
  return {
    qemu: aarch64QemuInPart(folderOf(AARCH64_QEMU_PART)),
    ...(await kernelInPart(folderOf(AARCH64_KERNEL))),
    busybox: busyboxIn(BUSYBOX_PART),
    guestBusybox: busyboxIn(AARCH64_BUSYBOX_PART),
  };
}

function busyboxIn(part: LabPart): string {
  return join(folderOf(part), 'usr', 'bin', 'busybox');
}

/** A folder that holds a C compiler for aarch64 guests, laid out as below `/`; its programs run where they lie. */
export async function aarch64CompilerPrefix(): Promise<string> {
  return await partFolder(AARCH64_COMPILER_PART);
}

/** A folder that holds Debian's QEMU and the libraries it needs, laid out as below `/`; for virtual hosts. */
export async function qemuPrefix(): Promise<string> {
  return prefixInPart(await partFolder(QEMU_PART));
}

/** A folder that holds a C compiler and what it links programs for guests with, laid out as below `/`. */
export async function compilerPrefix(): Promise<string> {
  return await partFolder(COMPILER_PART);
}

/** A folder that holds Debian's tools for guests with their libraries, laid out as below `/`. */
export async function guestToolsPrefix(): Promise<string> {
  return await partFolder(TOOLS_PART);
}

async function unpackCompiler(archive: DebianArchive, target: string): Promise<void> {
  await archive.unpackWithDependencies(['tcc'], target);
  // Of musl only what programs are linked with: what its package depends on is another compiler.
  await archive.unpack('musl-dev', target);
  await archive.unpack('linux-libc-dev', target);
}
