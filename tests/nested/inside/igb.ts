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
  type MakingReport,
  makingReports,
  mappingReports,
  type PauseReport,
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
const COUNTS = [1, 2, 7] as const;
/** The first time QEMU has the slots nowhere yet, and much of the code has never run. */
const ENABLES = ['first', 'again', 'again', 'again'] as const;
/** Of the time that the host takes, as much is to be the guest's own wait. */
const WAITED_MILLISECONDS = 80;
/** Beside that a standstill may last as long as so many pauses in which nothing is done. */
const MOST_BARE_PAUSES = 2;
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

  await enableInTurns(vm, pf, bare);
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

/** How long the guest stands still for its VFs, beside the host's own time and bare pauses of the same run. */
async function enableInTurns(vm: GuestVm, pf: Pf, bare: { enable: number; disable: number }) {
  const enabled: Enabled[] = [];
  const disables: number[] = [];
  for (const which of ENABLES) {
    for (const count of COUNTS) {
      const milliseconds = await chapter(`the guest enables ${count} VFs`, () =>
        enableVfs(vm, count),
      );
      assert.equal(pf.vfCount, count);
      enabled.push({ which, count, milliseconds, ...(await reportsOf(vm, count)) });
      disables.push(await chapter('and disables them', () => disableVfs(vm)));
    }
  }
  const [, ofTwo] = enabled;
  figure(
    'sriov_numvfs 0 -> 2',
    `${ofTwo!.milliseconds} ms in the guest, ${bare.enable} ms on the bare host`,
  );
  figure(
    'sriov_numvfs 2 -> 0',
    `${disables[1]} ms in the guest, ${bare.disable} ms on the bare host`,
  );
  const barePause = median(enabled.flatMap((each) => each.barePauses));
  for (const which of new Set(ENABLES)) {
    for (const count of COUNTS) {
      const those = enabled.filter((each) => each.which === which && each.count === count);
      judgePauses(`pause for ${count} VFs, ${which}`, those, barePause);
    }
  }
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

/** One enable as glue and backend report it, and some pauses of the guest right behind it in which nothing was done. */
interface Enabled {
  readonly which: (typeof ENABLES)[number];
  readonly count: number;
  /** Of guest time. */
  readonly milliseconds: number;
  readonly report: PauseReport;
  readonly making: MakingReport;
  readonly barePauses: readonly number[];
}

async function reportsOf(vm: GuestVm, count: number) {
  await until("the host's account", () => makingReports(vm).at(-1)?.count === count);
  const [report, making] = [pauseReports(vm).at(-1)!, makingReports(vm).at(-1)!];
  assert.equal(report.placedVfs, count);
  return { report, making, barePauses: await barePauses(BARE_PAUSES) };
}

/** A pause may take what the host takes itself beyond the guest's own wait, and two pauses without anything. */
function judgePauses(name: string, enabled: readonly Enabled[], barePause: number): void {
  const of = (value: (each: Enabled) => number): number => median(enabled.map(value));
  const rounded = (value: (each: Enabled) => number): number => Math.round(of(value));
  const hostOf = ({ making }: Enabled): number =>
    Math.max(0, making.numVfsMilliseconds + making.openMilliseconds - WAITED_MILLISECONDS);
  const excess = of((each) => each.report.pauseMilliseconds - hostOf(each));
  figure(
    name,
    `${rounded(({ report }) => report.pauseMilliseconds)} ms = ` +
      `stop ${rounded(({ report }) => report.stopMilliseconds)}, ` +
      `placement ${rounded(({ report }) => report.placementMilliseconds)} ` +
      `(${rounded(({ report }) => report.placementCommands)} commands), ` +
      `backend ${rounded(({ report }) => report.backendMilliseconds)}, ` +
      `cont ${rounded(({ report }) => report.contMilliseconds)}; ` +
      `CPUs stood still for ${rounded(({ report }) => report.standstillMilliseconds)}; ` +
      `the host's sriov_numvfs ${rounded(({ making }) => making.numVfsMilliseconds)}, ` +
      `VF opens ${rounded(({ making }) => making.openMilliseconds)}; beyond the host's time less ` +
      `${WAITED_MILLISECONDS}: ${Math.round(excess)} ms, ${(excess / barePause).toFixed(2)} bare pauses ` +
      `of ${Math.round(barePause)} (at most ${MOST_BARE_PAUSES}), all ${enabled.map(({ report }) => Math.round(report.pauseMilliseconds)).join(', ')}`,
  );
}
