// Tests that nobody here wrote, in one guest of stock QEMU with a virtual IOMMU. README.md beside this says what is left out.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { guestToolFiles } from '../lab/guest-tools.ts';
import { linuxSource } from '../lab/linux-source.ts';
import { SriovGuest } from '../vm/sriov-guest.ts';
import { casesOf } from './kselftest.ts';
import { foreignPrograms, KERNEL, PROGRAMS, type Program } from './programs.ts';

/** What the guest's kernel has no interface for, by the cases' names. */
const NEEDS_IOMMUFD = /iommufd/;
/** The guest has no huge pages to spare. */
const NEEDS_HUGE_PAGES = /hugetlb/;

/** A compiler and a kernel's source are fetched the first time, and programs built. */
const FETCH_TIMEOUT_MS = 600_000;

let guest: SriovGuest;

beforeAll(async () => {
  const folder = await foreignPrograms();
  guest = await SriovGuest.boot({
    kernel: KERNEL,
    device: ['--device=endpoint-test', '--total-vfs=2'],
    modules: [join(folder, 'pci_endpoint_test.ko')],
    iommu: true,
    memoryMegabytes: 384,
    files: [
      ...PROGRAMS.map((name) => ({ path: `/kselftest/${name}`, source: join(folder, name) })),
      ...(await guestToolFiles(['lspci'])),
    ],
  });
}, FETCH_TIMEOUT_MS);

afterAll(async () => {
  await guest?.end();
});

/** Names of the cases that passed, of those that did not, and of those that were skipped with what they said. */
async function run(program: Program, ...args: readonly string[]) {
  const { output } = await guest.vm.run(`/kselftest/${program} ${args.join(' ')}`, {
    timeoutMs: 120_000,
  });
  const named = (outcome: string) => cases.filter((each) => each.outcome === outcome);
  const cases = casesOf(output);
  // A case that skips itself forgets what it found before.
  expect(output).not.toContain('Test failed for');
  return {
    passed: named('ok').map(({ name }) => name),
    failed: named('not ok').map(({ name }) => name),
    skipped: named('skipped').map(({ name, reason }) => `${name}: ${reason}`),
  };
}

/** The program, on a function that the driver vfio-pci has: `left` are the cases that are left out. */
async function expectVfio(program: Program, address: string, passing: number, left: RegExp[]) {
  const { passed, failed, skipped } = await run(program, address);
  const isLeft = (name: string): boolean => left.some((each) => each.test(name));
  expect([...failed, ...skipped].filter((name) => !isLeft(name))).toEqual([]);
  expect(passed.filter((name) => !isLeft(name))).toHaveLength(passing);
}

/** Every function has lspci show what was checked in once, and read by a person. */
async function expectShown(address: string, golden: string): Promise<void> {
  const output = await guest.vm.check(`lspci -vvv -s ${address} 2>/dev/null`);
  // What the guest's kernel chose, and may choose otherwise.
  const shown = output
    .replace(/routed to IRQ \d+/g, 'routed to IRQ N')
    .replace(/IOMMU group: \d+/g, 'IOMMU group: N')
    .replace(/Memory at [0-9a-f]{8}/g, 'Memory at N')
    .replace(/Address: [0-9a-f]{16} {2}Data: [0-9a-f]{4}/g, 'Address: N  Data: N');
  const path = fileURLToPath(new URL(`lspci/${golden}.txt`, import.meta.url));
  expect(`${shown.trimEnd()}\n`).toBe(await readFile(path, 'utf8'));
}

it('the guest’s kernel is of the source that the tests are of', async () => {
  const makefile = await readFile(join(await linuxSource(), 'Makefile'), 'utf8');
  const [, version, patchLevel] = /^VERSION = (\d+)\nPATCHLEVEL = (\d+)$/m.exec(makefile)!;
  expect(await guest.vm.check('uname -r')).toMatch(new RegExp(`^${version}\\.${patchLevel}\\.`));
});

describe("pci_endpoint_test's kselftest, by its driver", () => {
  const SUBRANGE = 'BAR_SUBRANGE_TEST';
  const BARS = Array.from({ length: 6 }, (_, bar) => `pci_ep_bar.BAR${bar}.BAR_TEST`);
  const SUBRANGES = Array.from(
    { length: 5 },
    (_, index) => `pci_ep_bar.BAR${index + 1}.${SUBRANGE}`,
  );
  const SKIPPED = [
    `pci_ep_bar.BAR0.${SUBRANGE}: BAR is test register space`,
    'pci_ep_basic.MSIX_TEST: MSI-X33 is disabled',
  ];
  const PASSED = [
    ...[...BARS, ...SUBRANGES, 'pci_ep_basic.CONSECUTIVE_BAR_TEST', 'pci_ep_basic.MSI_TEST'],
    ...['memcpy', 'dma'].flatMap((by) =>
      ['READ', 'WRITE', 'COPY'].map((what) => `pci_ep_data_transfer.${by}.${what}_TEST`),
    ),
    'pcie_ep_doorbell.DOORBELL_TEST',
  ];
  const INTX = 'pci_ep_basic.LEGACY_IRQ_TEST';

  it('passes on the PF', async () => {
    const { passed, failed, skipped } = await run('pci_endpoint_test');
    expect([failed, skipped]).toEqual([[], SKIPPED]);
    expect(new Set(passed)).toEqual(new Set([...PASSED, INTX]));
  });

  it('passes on a VF, but for INTx, which it does not have', async () => {
    await guest.setNumVfs(1);
    // The test knows one device by name: the first.
    await guest.vm.check(
      'cd /dev && mv pci-endpoint-test.0 pf && ln -s pci-endpoint-test.1 pci-endpoint-test.0',
    );
    const { passed, failed, skipped } = await run('pci_endpoint_test');
    await guest.vm.check('cd /dev && mv pf pci-endpoint-test.0');
    expect([failed, skipped]).toEqual([[INTX], SKIPPED]);
    expect(new Set(passed)).toEqual(new Set(PASSED));
  });
});

describe('lspci -vvv', () => {
  it('shows the PF', async () => {
    await expectShown(guest.pf, 'pf');
  });

  it('shows a VF', async () => {
    await expectShown(guest.vf(0), 'vf');
  });
});

describe("VFIO's selftests, in the guest", () => {
  describe('on a VF, with the PF bound to its own driver', () => {
    beforeAll(async () => {
      await guest.bindDriver('vfio-pci', guest.vf(0));
    });

    it('DMA mapping', async () => {
      const left = [NEEDS_IOMMUFD, NEEDS_HUGE_PAGES];
      await expectVfio('vfio_dma_mapping_test', guest.vf(0), 8, left);
    });

    it('the device: config space, BARs, reset, MSI and MSI-X', async () => {
      await expectVfio('vfio_pci_device_test', guest.vf(0), 5, []);
    });

    it('setting it up', async () => {
      await expectVfio('vfio_pci_device_init_perf_test', guest.vf(0), 2, [NEEDS_IOMMUFD]);
    });
  });

  describe('on the PF', () => {
    beforeAll(async () => {
      await guest.setNumVfs(0);
      await guest.vm.check('echo 1 > /sys/module/vfio_pci/parameters/enable_sriov');
      await guest.bindDriver('vfio-pci');
    });

    it('DMA mapping', async () => {
      const left = [NEEDS_IOMMUFD, NEEDS_HUGE_PAGES];
      await expectVfio('vfio_dma_mapping_test', guest.pf, 8, left);
    });

    it('the device: config space, BARs, reset, MSI and MSI-X', async () => {
      await expectVfio('vfio_pci_device_test', guest.pf, 5, []);
    });

    it('setting it up', async () => {
      await expectVfio('vfio_pci_device_init_perf_test', guest.pf, 2, [NEEDS_IOMMUFD]);
    });

    it('SR-IOV: who may have a VF, by its token', async () => {
      await expectVfio('vfio_pci_sriov_uapi_test', guest.pf, 18, [NEEDS_IOMMUFD]);
    });
  });
});

it('neither the kernel nor QEMU had anything to complain of', async () => {
  const { output } = await guest.vm.run("dmesg | grep -E 'WARNING:|BUG:|Call Trace'");
  expect(output).toBe('');
  await guest.expectNoComplaints();
});
