// The kernel's own tests, and the one driver that they need: from the newest Linux source in trixie's backports, of which
// only these files are kept.
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { DebianArchive } from './debian-archive.ts';
import { kernelBuild } from './kernel-build.ts';
import { LabError } from './lab-error.ts';
import { type LabPart, partFolder } from './parts.ts';
import { runProgram } from './run-program.ts';

/** Patterns of tar's, below the source's root; the tests' own drivers of cards have links to headers of the kernel's. */
const WANTED = [
  'Makefile',
  'drivers/dma/idxd/registers.h',
  'drivers/dma/ioat/*.h',
  'drivers/misc/pci_endpoint_test.c',
  'drivers/net/ethernet/intel/igb/e1000_*.h',
  'include/linux/pci_ids.h',
  'include/uapi/linux/pcitest.h',
  'tools/arch/x86/include/*',
  'tools/include/*',
  'tools/testing/selftests/kselftest*.h',
  'tools/testing/selftests/pci_endpoint/*',
  'tools/testing/selftests/vfio/*',
];

/** The folder that stands for the source's root. Throws LabError. */
export async function linuxSource(): Promise<string> {
  const { prefix } = await kernelBuild();
  const part: LabPart = {
    name: 'linux-source-2',
    what: "the kernel's own tests",
    build: (archive, target) => unpackSource(archive, target, prefix),
  };
  return await partFolder(part);
}

/** `tools`: where an xz is. */
async function unpackSource(archive: DebianArchive, target: string, tools: string): Promise<void> {
  const meta = 'linux-source';
  const suite = 'trixie-backports';
  const names = await archive.dependenciesOf(meta, suite);
  const name = names.find((it) => it.startsWith('linux-source-'));
  if (name === undefined) {
    throw new LabError(meta, `it depends on no source in ${suite}`, 'report this');
  }
  const unpacked = join(target, 'package');
  await archive.unpack(name, unpacked, suite);
  const files = join(target, 'files');
  await mkdir(files);
  const archived = join(unpacked, 'usr/src', `${name}.tar.xz`);
  const result = await runProgram('tar', [
    ...['-C', files, '--strip-components=1', '-I', join(tools, 'usr/bin/xz')],
    ...['-xf', archived, '--wildcards', ...WANTED.map((pattern) => `${name}/${pattern}`)],
  ]);
  if (result.status !== 0) {
    throw new LabError(name, result.stderr, 'free some room on the disk, and run this again');
  }
  await rm(unpacked, { recursive: true });
  for (const entry of await readdir(files)) {
    await rename(join(files, entry), join(target, entry));
  }
  await rm(files, { recursive: true });
}
