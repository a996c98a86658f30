// Getting a PF ready for `serve`, and back to how it was: driver, enable_sriov, owners of files. Notes in HostState what
// it found, so that `release` restores that and nothing else. Root only. Called by the prepare and release commands.

import { chownSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Clock } from '../../../../protocol/clock.ts';
import { Errno } from '../../../../protocol/errno.ts';
import { askUntil, type Patience } from '../../../../protocol/retry.ts';
import { HostError } from '../../../device/physical-device.ts';
import { attempt } from '../attempt.ts';
import type { HostContext } from '../host-context.ts';
import { HostState, preparedPfs } from '../host-state.ts';
import { moduleParameter, PciFunctionFolder, setModuleParameter } from '../sysfs.ts';
import { groupPath, isGroupHeld } from '../vfio/group.ts';
import { describeHolder } from './holders.ts';
import { insist } from './requirements.ts';

const VFIO_PCI = 'vfio-pci';
const PROBE_PATIENCE: Omit<Patience, 'clock'> = {
  patienceMilliseconds: 2_000,
  stepMilliseconds: 10,
};

export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** Who may use a prepared PF. */
export interface Grant extends Account {
  /** VFs and `sriov_numvfs` stay with root, whose processes (`privileged`) the backend asks. */
  readonly isPfOnly?: boolean;
}

export interface PreparationTools {
  /** Loads a kernel module. @throws when it cannot. */
  readonly loadModule: (name: string) => void;
  /** Where udev looks for rules that last until the next boot. */
  readonly udevRules: string;
  /** Makes udev read its rules again. */
  readonly reloadUdev: () => void;
  /** Waits, for some seconds at most, until udev has loaded drivers for what it was told of. */
  readonly settleUdev: () => void;
}

/** Binds the PF to vfio-pci and lets whom `grant` names use it. Each thing done is told to `report`. @throws HostError */
export async function prepare(
  context: HostContext,
  tools: PreparationTools,
  bdf: string,
  grant: Grant | undefined,
  report: (line: string) => void,
): Promise<void> {
  const { sysfs, dev, state: stateFolder } = context.folders;
  const pf = new PciFunctionFolder(sysfs, bdf);
  insist(sysfs, bdf, 'prepare');
  const state = new HostState(stateFolder, bdf);
  if (pf.driver === undefined) {
    // While the host boots its driver may be about to come, and is the one to give it back to.
    tools.settleUdev();
  }
  const before = state.read().prepared ?? {
    driver: pf.driver ?? null,
    driverOverride: pf.driverOverride ?? null,
    enableSriov: moduleParameter(sysfs, 'vfio_pci', 'enable_sriov') ?? null,
    owners: [],
    files: [],
  };
  if (pf.driver !== VFIO_PCI) {
    await refuseWithVfs(pf);
  }
  // Noted before the first change: a failure in between can be undone as well.
  state.update({ prepared: before });

  if (moduleParameter(sysfs, 'vfio_pci', 'enable_sriov') === undefined) {
    tools.loadModule(VFIO_PCI);
    report('loaded vfio-pci');
  }
  if (moduleParameter(sysfs, 'vfio_iommu_type1', 'dma_entry_limit') === undefined) {
    tools.loadModule('vfio_iommu_type1');
    report('loaded vfio_iommu_type1');
  }
  if (moduleParameter(sysfs, 'vfio_pci', 'enable_sriov') !== 'Y') {
    setModuleParameter(sysfs, 'vfio_pci', 'enable_sriov', '1');
    report('turned enable_sriov of vfio-pci on');
  }
  if (pf.driver !== VFIO_PCI) {
    const previous = pf.driver;
    await rebind(context.clock, pf, VFIO_PCI, VFIO_PCI);
    report(`bound ${bdf} to vfio-pci${previous === undefined ? '' : ` (it was with ${previous})`}`);
  }
  if (grant === undefined) {
    return;
  }

  const numVfs = pf.attributePath('sriov_numvfs');
  const rule = `${tools.udevRules}/70-vfio-user-sriov-${bdf}.rules`;
  const paths = [
    groupPath(context.folders, pf.iommuGroup!),
    ...(grant.isPfOnly === true ? [] : [numVfs]),
  ];
  const owners = [...before.owners];
  for (const path of paths.filter((each) => !owners.some((owner) => owner.path === each))) {
    const { uid, gid } = statSync(path);
    owners.push({ path, uid, gid });
  }
  // As above: what follows can be undone wherever it fails.
  state.update({ prepared: { ...before, owners, files: [rule] } });
  for (const path of paths) {
    chownSync(path, grant.uid, grant.gid);
    report(`gave ${path} to ${grant.name}`);
  }
  if (grant.isPfOnly === true) {
    // Where it was prepared otherwise before.
    for (const { path, uid, gid } of owners.filter((owner) => owner.path === numVfs)) {
      chownSync(path, uid, gid);
    }
    rmSync(rule, { force: true });
  } else {
    mkdirSync(dirname(rule), { recursive: true });
    writeFileSync(rule, udevRule(sysfs, bdf, grant.name));
    report(`wrote ${rule}, which gives the IOMMU groups of its VFs to ${grant.name}`);
  }
  tools.reloadUdev();
  report(`${dev}/vfio/vfio stays as it is: it is open to everybody`);
}

/** Undoes `prepare`. @throws HostError EBUSY when the PF or a VF is in use: unbinding it would hang. */
export async function release(
  context: HostContext,
  tools: PreparationTools,
  bdf: string,
  report: (line: string) => void,
): Promise<void> {
  const { sysfs, state: stateFolder } = context.folders;
  const pf = new PciFunctionFolder(sysfs, bdf);
  const state = new HostState(stateFolder, bdf);
  const { prepared, enabledVfs } = state.read();
  if (prepared === undefined) {
    throw new HostError(
      'open',
      Errno.ENOENT,
      `${stateFolder}/${bdf}.json`,
      `${bdf} was not prepared by this program since the host started`,
      'bind it to another driver by hand, if you mean to',
    );
  }
  const unlock = state.lock();
  try {
    if (pf.driver === VFIO_PCI) {
      await refuseHeld(context, pf);
      // A user's backend notes what it enables in a folder of that user's: to whom the PF was given has made the VFs.
      const isUsers = prepared.owners.length > 0;
      if ((enabledVfs !== undefined || isUsers) && pf.virtualFunctions().length > 0) {
        await removeVfs(context, pf);
        report('removed the VFs that a backend had left');
      }
      await refuseWithVfs(pf);
      await rebind(
        context.clock,
        pf,
        prepared.driverOverride ?? '\n',
        prepared.driver ?? undefined,
      );
      report(`gave ${bdf} back to ${prepared.driver ?? 'no driver'}`);
    }
    for (const { path, uid, gid } of prepared.owners) {
      // What went away meanwhile needs no restoring.
      attempt(() => chownSync(path, uid, gid));
    }
    for (const path of prepared.files) {
      rmSync(path, { force: true });
    }
    if (prepared.files.length > 0) {
      tools.reloadUdev();
      report('restored the owners of files');
    }
    state.update({ prepared: undefined, enabledVfs: undefined });
    if (prepared.enableSriov === 'N' && preparedPfs(stateFolder).length === 0) {
      attempt(() => setModuleParameter(sysfs, 'vfio_pci', 'enable_sriov', '0'));
      report('turned enable_sriov of vfio-pci off');
    }
  } finally {
    unlock();
  }
}

/** A udev rule that gives the IOMMU groups that have VFs of this PF, and nothing else, in them to `user`. */
export function udevRule(sysfs: string, bdf: string, user: string): string {
  const members = `${sysfs}/kernel/iommu_groups/%k/devices/*`;
  const isOfPf = `test $$(readlink -f $$i/physfn) = $$(readlink -f ${sysfs}/bus/pci/devices/${bdf})`;
  return [
    '# Written by `vfio-user-sriov prepare`, removed by `vfio-user-sriov release`.',
    `ACTION=="add", SUBSYSTEM=="vfio", PROGRAM="/bin/sh -c 'for i in ${members}; do ${isOfPf} || exit 1; done'", OWNER="${user}"`,
    '',
  ].join('\n');
}

async function refuseWithVfs(pf: PciFunctionFolder): Promise<void> {
  const count = pf.virtualFunctions().length;
  if (count === 0) {
    return;
  }
  throw new HostError(
    'unbind',
    Errno.EBUSY,
    pf.path,
    `it has ${count} VFs enabled`,
    `disable them first: echo 0 > ${pf.attributePath('sriov_numvfs')}`,
  );
}

async function refuseHeld(context: HostContext, pf: PciFunctionFolder): Promise<void> {
  for (const bdf of [pf.bdf, ...pf.virtualFunctions()]) {
    const group = pf.sibling(bdf).iommuGroup;
    if (group === undefined || !(await isGroupHeld(context.calls, context.folders, group))) {
      continue;
    }
    throw new HostError(
      'unbind',
      Errno.EBUSY,
      pf.path,
      `${bdf} is in use by ${describeHolder(group, context.folders.proc)}`,
      'end that process first',
    );
  }
}

async function removeVfs(context: HostContext, pf: PciFunctionFolder): Promise<void> {
  const path = pf.attributePath('sriov_numvfs');
  const writer = context.startWriter(path);
  const errno = await writer.write(0);
  writer.close();
  if (errno === 0) {
    return;
  }
  throw new HostError('write', errno, path, 'the VFs that a backend left stay', 'see dmesg');
}

// Through driver_override, never new_id: that would take every device of this kind.
async function rebind(
  clock: Clock,
  pf: PciFunctionFolder,
  override: string,
  driver: string | undefined,
): Promise<void> {
  const fail = (error: unknown) => {
    const { errno = -Errno.EIO, message } = error as NodeJS.ErrnoException;
    return new HostError('bind', -errno, pf.path, message, 'see dmesg');
  };
  try {
    await pf.write('driver_override', override);
    await pf.unbindDriver();
    if (driver !== undefined) {
      await pf.probeDriver();
    }
  } catch (error) {
    throw fail(error);
  }
  const isBound = (): boolean => driver === undefined || pf.driver === driver;
  if (await askUntil(isBound, (bound) => bound, { clock, ...PROBE_PATIENCE })) {
    return;
  }
  throw new HostError(
    'bind',
    Errno.ENODEV,
    pf.path,
    `the driver ${driver} does not take it`,
    `load it (modprobe ${driver}), and see dmesg`,
  );
}
