// Story "igb": the guest's igb enables VFs on the host's card, igbvf uses them, and packets flow through the kernel's
// IOMMU and interrupts. Measures, in the same run, how long the guest stands still and what its drivers notice; VFs that are
// mapped over their slots are to be as fast as the PF.
import { strict as assert } from 'node:assert';
import type { GuestVm } from '../../lab/guest.ts';
import {
  bringUpPf,
  bringUpVf,
  disableVfs,
  enableVfs,
  inGuest,
  packetsPerSecond,
  pingOutside,
  readRegister,
  transferOutside,
  type Which,
  withAddress,
} from './guest-driver.ts';
import { bareEnable, cli, expectCleanRecording, expectQuietHost, Pf, shell } from './host.ts';
import {
  barePauses,
  diagnosed,
  makingReports,
  mappingReports,
  pauseReports,
  startGuest,
  VF_MEMORY,
} from './inner-guest.ts';
import { chapter, figure, median, ratio, tell, until } from './story.ts';

const VFS = 3;
const TRACE = '/tmp/igb.trace';
/** One after the other, so that what else the machine does is both's. */
const TRANSFERS = 3;
const TRANSFER_BYTES = 2 * 1024 * 1024;

/** The status register of the PF, and of a VF. */
const STATUS = { bar: 0, offset: 8 };
/** Of the page with a VF's MSI-X table, which nobody maps. */
const BESIDE_MSIX_TABLE = { bar: 3, offset: 0x800 };
const BARE_PAUSES = 5;
/** Of the time that the host takes, as much is to be the guest's own wait. */
const WAITED_MILLISECONDS = 80;
/** How long the guest may take to boot anew. */
const RESTART_MILLISECONDS = 180_000;

export async function igb(): Promise<void> {
  const pf = new Pf('0000:01:00.0');
  const bare = await chapter("the host's own igb enables 2 VFs, for comparison", () =>
    bareEnable(pf, 2),
  );
  await chapter('`prepare` gives the PF to vfio-pci', async () => {
    cli('prepare', `--pf=${pf.bdf}`);
  });
  const vm = await chapter('the guest boots on stock QEMU', () =>
    startGuest([`--pf=${pf.bdf}`, '--total-vfs=7', `--trace=${TRACE}`, '--trace-size=16M'], 'info'),
  );
  try {
    await useCard(vm, pf, bare);
    await chapter('the guest powers off', () => vm.powerOff());
    await chapter('the host is as before', () => expectQuietHost([pf]));
  } catch (error) {
    throw await diagnosed(vm, error);
  } finally {
    await vm.kill();
  }
}

async function useCard(vm: GuestVm, pf: Pf, bare: { enable: number; disable: number }) {
  const mapped = await chapter('registers of the PF are read, before it has a driver', () =>
    readRegister(vm, '$PF', STATUS),
  );
  await chapter('igb binds to the PF, by MSI-X, and has its link', () => bringUpPf(vm));
  assert.match(await inGuest(vm, 'cat /proc/interrupts'), /PCI-MSIX-0000:01:00\.0/);
  await chapter('the PF reaches the outer network', () => withAddress(vm, 'pf', pingOutside));

  // Again, because the first time QEMU has the slots nowhere yet, and much of the code has never run.
  for (const again of [false, true]) {
    for (const count of [1, 2, 7]) {
      const enable = await chapter(`the guest enables ${count} VFs`, () => enableVfs(vm, count));
      assert.equal(pf.vfCount, count);
      await reportPause(vm, count, again);
      const disable = await chapter('and disables them', () => disableVfs(vm));
      if (count !== 2 || again) {
        continue;
      }
      figure(
        'sriov_numvfs 0 -> 2',
        `${enable} ms in the guest, ${bare.enable} ms on the bare host`,
      );
      figure(
        'sriov_numvfs 2 -> 0',
        `${disable} ms in the guest, ${bare.disable} ms on the bare host`,
      );
    }
  }

  await useVfs(vm, mapped);
  await chapter('the recording of igb and igbvf breaks no rule of the standard', async () =>
    expectCleanRecording(TRACE),
  );
  await chapter('the guest restarts with its VFs on', () =>
    vm.reboot({ timeoutMs: RESTART_MILLISECONDS }),
  );
  await until('no VF on the host', () => pf.vfCount === 0);
  await chapter('igb binds to the PF again', () => bringUpPf(vm));
  await chapter(`and enables ${VFS} VFs`, () => enableVfsToUse(vm));
  await chapter('one of them reaches the outer network', async () => {
    await bringUpVf(vm, 0);
    await withAddress(vm, 0, pingOutside);
  });
  await chapter('the VFs are disabled again', () => disableVfs(vm));
  assert.equal(pf.vfCount, 0);
}

/** Where they are to be mapped, until the glue has said that they are. */
async function enableVfsToUse(vm: GuestVm): Promise<void> {
  const before = mappingReports(vm).length;
  await enableVfs(vm, VFS);
  if (VF_MEMORY === 'trapped') {
    return;
  }
  await until('VFs that are mapped', () => mappingReports(vm).length > before);
  const { vfs, milliseconds } = mappingReports(vm).at(-1)!;
  assert.equal(vfs, VFS);
  tell(`${vfs} VFs are mapped ${milliseconds} ms after they were enabled`);
}

async function useVfs(vm: GuestVm, ofPf: number): Promise<void> {
  await chapter(`echo ${VFS} > sriov_numvfs`, () => enableVfsToUse(vm));
  const mapped = await readRegister(vm, '$PF/virtfn0', STATUS);
  const trapped = await readRegister(vm, '$PF/virtfn0', BESIDE_MSIX_TABLE);
  compare('a 4-byte register read, in ns', mapped, ofPf, (of) => of <= 1.5);
  figure('a 4-byte read that is trapped', `${(trapped / 1000).toFixed(1)} us`);
  for (let vfIndex = 0; vfIndex < VFS; vfIndex++) {
    await chapter(`igbvf binds to VF ${vfIndex}: a MAC from the PF, a link`, () =>
      bringUpVf(vm, vfIndex),
    );
    await chapter(`VF ${vfIndex} reaches the outer network`, () =>
      withAddress(vm, vfIndex, pingOutside),
    );
  }
  tell(shell("grep -E 'vfio-msix' /proc/interrupts | sed 's/  */ /g'"));
  const transfer = (which: Which, name: string): Promise<number> =>
    chapter(`2 MB go out through ${name} and come back`, () =>
      withAddress(vm, which, () => transferOutside(vm, TRANSFER_BYTES)),
    );
  const throughPf: number[] = [];
  const throughVf: number[] = [];
  for (let round = 0; round < TRANSFERS; round++) {
    throughPf.push(await transfer('pf', 'the PF'));
    throughVf.push(await transfer(1, 'VF 1'));
  }
  compare('a transfer of 2 MB, in ms', median(throughVf), median(throughPf), (of) => of <= 1.5);
  const packetsOfPf = await packetsPerSecond(vm, 'pf');
  const packetsOfVf = await packetsPerSecond(vm, 0);
  compare('packets sent per second', packetsOfVf, packetsOfPf, (of) => of >= 0.8);
  await chapter('a VF is reset by FLR, and reaches the outer network again', async () => {
    // Its interface stays up: igbvf waits for ever where its NAPI is off already when it prepares for a reset.
    await inGuest(vm, 'echo 1 > $PF/virtfn1/reset; wait_for 30 has_link $(vf_if 1)');
    await withAddress(vm, 1, pingOutside);
  });
}

/** Only mapped VFs are to be fast. */
function compare(name: string, ofVf: number, ofPf: number, isRight: (ratio: number) => boolean) {
  ratio(name, ofVf, ofPf, VF_MEMORY === 'mapped' ? isRight : () => true);
}

/** Beside what it may be: of the host's own time what the guest does not wait for by itself, and two pauses without anything. */
async function reportPause(vm: GuestVm, count: number, again: boolean): Promise<void> {
  await until("the host's account", () => makingReports(vm).at(-1)?.count === count);
  const report = pauseReports(vm).at(-1);
  const making = makingReports(vm).at(-1);
  assert.equal(report?.placedVfs, count);
  assert.ok(making);
  const bare = median(await barePauses(BARE_PAUSES));
  const host = making.numVfsMilliseconds + making.openMilliseconds;
  const limit = Math.max(0, host - WAITED_MILLISECONDS) + 2 * bare;
  const rounded = (value: number): number => Math.round(value);
  figure(
    `pause for ${count} VFs${again ? ' again' : ''}`,
    `${rounded(report.pauseMilliseconds)} ms = stop ${rounded(report.stopMilliseconds)}, ` +
      `placement ${rounded(report.placementMilliseconds)} (${report.placementCommands} commands), ` +
      `backend ${rounded(report.backendMilliseconds)}, cont ${rounded(report.contMilliseconds)}; ` +
      `the host's sriov_numvfs ${making.numVfsMilliseconds}, VF opens ${making.openMilliseconds}; ` +
      `${rounded(limit)} with two bare pauses of ${rounded(bare)}`,
  );
}
