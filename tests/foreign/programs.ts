// Builds what the kernel's own tests are: kselftests, and the driver that one of them tests a device through. Once, into
// the lab's cache.
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cachedPart, cacheFolder, withLock } from '../lab/cache.ts';
import { buildModules, buildProgram, type KernelBuild, kernelBuild } from '../lab/kernel-build.ts';
import { linuxSource } from '../lab/linux-source.ts';

/** A folder of its own in the cache; its number changes with how things are built. */
const PART = 'foreign-programs-2';
/** The guest's: the tests are of its source. */
export const KERNEL = 'backports';
const SELFTESTS = 'tools/testing/selftests';
const VFIO_TESTS = [
  'vfio_dma_mapping_test',
  'vfio_pci_device_test',
  'vfio_pci_device_init_perf_test',
  'vfio_pci_sriov_uapi_test',
] as const;
/** What libvfio.mk lists for x86. */
const LIBVFIO = [
  ...['iommu', 'iova_allocator', 'libvfio', 'sysfs', 'vfio_pci_device', 'vfio_pci_driver'],
  ...['ioat/ioat', 'dsa/dsa', 'nv_falcon/nv_falcon', 'igb/igb'].map((name) => `drivers/${name}`),
];

export const PROGRAMS = ['pci_endpoint_test', ...VFIO_TESTS] as const;
export type Program = (typeof PROGRAMS)[number];

/** A folder with the PROGRAMS and pci_endpoint_test.ko. Throws LabError. */
export async function foreignPrograms(): Promise<string> {
  const build = await kernelBuild(KERNEL);
  const source = await linuxSource();
  const part = `${PART}-${build.version}`;
  const folder = cacheFolder();
  await withLock(folder, () =>
    cachedPart(folder, part, async (target) => {
      await buildDriver(source, target, build);
      await buildEndpointTest(source, target);
      await buildVfioTests(source, target);
    }),
  );
  return join(folder, part);
}

async function buildDriver(source: string, target: string, build: KernelBuild): Promise<void> {
  const work = await mkdtemp(join(tmpdir(), 'endpoint-driver-'));
  try {
    await cp(join(source, 'drivers/misc/pci_endpoint_test.c'), join(work, 'pci_endpoint_test.c'));
    await writeFile(join(work, 'Makefile'), 'obj-m := pci_endpoint_test.o\n');
    await buildModules(work, target, build);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function buildEndpointTest(source: string, target: string): Promise<void> {
  const selftests = join(source, SELFTESTS);
  const file = join(selftests, 'pci_endpoint/pci_endpoint_test.c');
  await buildProgram([file], join(target, 'pci_endpoint_test'), [`-I${selftests}`]);
}

/** The guest's kernel has no iommufd, so tests that take the library's default mode are given the one that it has. */
async function buildVfioTests(source: string, target: string): Promise<void> {
  const selftests = join(source, SELFTESTS);
  const work = await mkdtemp(join(tmpdir(), 'vfio-selftests-'));
  try {
    const iommu = join(selftests, 'vfio/lib/iommu.c');
    const text = await readFile(iommu, 'utf8');
    const changed = text
      .replace(
        'default_iommu_mode = MODE_IOMMUFD;',
        'default_iommu_mode = MODE_VFIO_TYPE1V2_IOMMU;',
      )
      .replace('"../../../kselftest.h"', '"kselftest.h"');
    await mkdir(work, { recursive: true });
    await writeFile(join(work, 'iommu.c'), changed);
    const library = LIBVFIO.map((name) =>
      name === 'iommu' ? join(work, 'iommu.c') : join(selftests, 'vfio/lib', `${name}.c`),
    );
    const options = [
      ...['-D_GNU_SOURCE', `-I${join(selftests, 'vfio/lib/include')}`],
      ...[`-I${join(source, 'tools/include')}`, `-I${selftests}`, '-luuid'],
    ];
    for (const test of VFIO_TESTS) {
      const file = join(selftests, 'vfio', `${test}.c`);
      await buildProgram([file, ...library], join(target, test), options);
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
