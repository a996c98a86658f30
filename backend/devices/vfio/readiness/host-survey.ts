// Takes the picture of a host that `doctor` judges. Reads only, and never waits for long. Called by commands/doctor.ts.

import { execFileSync } from 'node:child_process';
import { accessSync, constants, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { dirname } from 'node:path';
import { findExtendedCapability } from '../../../pci/capability-chain.ts';
import { ExtendedCapabilityId } from '../../../pci/spec/capability-ids.ts';
import { EXTENDED_CONFIG_BYTES } from '../../../pci/spec/header.ts';
import { attempt } from '../attempt.ts';
import { readMemlockLimit } from '../dma/dma-limits.ts';
import type { HostContext } from '../host-context.ts';
import { HostState } from '../host-state.ts';
import { moduleParameter, PciFunctionFolder, ResourceFlag, VF_BAR_LINES } from '../sysfs.ts';
import { groupPath, isGroupHeld } from '../vfio/group.ts';
import type { HostPicture, PfPicture } from './doctor.ts';
import { describeHolder } from './holders.ts';
import { factsOf } from './requirements.ts';

/** Looks at the host and at the PFs given, or at all there are. */
export async function surveyHost(
  context: HostContext,
  pfs?: readonly string[],
): Promise<HostPicture> {
  const { sysfs, proc, dev } = context.folders;
  const bdfs = pfs ?? allPfs(sysfs);
  const limit = moduleParameter(sysfs, 'vfio_iommu_type1', 'dma_entry_limit');
  return {
    iommuGroups: attempt(() => readdirSync(`${sysfs}/kernel/iommu_groups`).length) ?? 0,
    modules: {
      vfioPci: attempt(() => readdirSync(`${sysfs}/module/vfio_pci`)) !== undefined,
      type1: attempt(() => readdirSync(`${sysfs}/module/vfio_iommu_type1`)) !== undefined,
    },
    enableSriov: moduleParameter(sysfs, 'vfio_pci', 'enable_sriov'),
    dmaEntryLimit: limit === undefined ? undefined : Number(limit),
    vfioFile: accessTo(`${dev}/vfio/vfio`),
    memlock: readMemlockLimit(proc),
    qemuVersion: qemuVersion(),
    hugepages: hugepages(proc),
    pfs: await Promise.all(bdfs.map((bdf) => surveyPf(context, bdf))),
  };
}

async function surveyPf(context: HostContext, bdf: string): Promise<PfPicture> {
  const { folders, calls } = context;
  const pf = new PciFunctionFolder(folders.sysfs, bdf);
  const group = pf.iommuGroup;
  const numVfs = pf.attributePath('sriov_numvfs');
  const usesVfio = pf.driver === 'vfio-pci' && group !== undefined;
  const mayOpenPf = usesVfio && accessTo(groupPath(folders, group)) === 'usable';
  const isHeld = usesVfio && (await isGroupHeld(calls, folders, group));
  return {
    ...factsOf(pf, folders.sysfs),
    enabledVfs: await enabledVfs(context, pf),
    ownVfs: new HostState(folders.state, bdf).read().enabledVfs,
    acs: attempt(() => portHasAcs(pf.path)),
    vfBarsWithoutRoom: pf
      .resources()
      .slice(...VF_BAR_LINES)
      .flatMap(({ start, flags }, bar) =>
        (flags & ResourceFlag.memory) !== 0 && start === 0n ? [bar] : [],
      ),
    permission: mayOpenPf ? (isWritable(numVfs) ? 'all' : 'pf') : 'none',
    holder: isHeld ? describeHolder(group, folders.proc) : undefined,
  };
}

// Through the process of its own: this read can block for good.
async function enabledVfs(
  context: HostContext,
  pf: PciFunctionFolder,
): Promise<number | 'blocked' | undefined> {
  if (pf.attribute('sriov_totalvfs') === undefined) {
    return undefined;
  }
  const writer = context.startWriter(pf.attributePath('sriov_numvfs'));
  try {
    return await writer.read();
  } catch {
    return 'blocked';
  } finally {
    writer.close();
  }
}

function allPfs(sysfs: string): string[] {
  const devices = attempt(() => readdirSync(`${sysfs}/bus/pci/devices`)) ?? [];
  return devices.filter(
    (bdf) => new PciFunctionFolder(sysfs, bdf).attribute('sriov_totalvfs') !== undefined,
  );
}

/** Whether the port above has an ACS capability; undefined where its config space cannot be read in full (not root). */
function portHasAcs(path: string): boolean | undefined {
  const config = readFileSync(`${dirname(realpathSync(path))}/config`);
  if (config.length < EXTENDED_CONFIG_BYTES) {
    return undefined;
  }
  return findExtendedCapability(config, ExtendedCapabilityId.accessControlServices) !== undefined;
}

function qemuVersion(): string | undefined {
  const text = attempt(() =>
    execFileSync('qemu-system-x86_64', ['--version'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: 10_000,
    }),
  );
  return text === undefined ? undefined : /version (\d+\.\d+\.\d+)/.exec(text)?.[1];
}

function hugepages(proc: string): HostPicture['hugepages'] {
  const text = attempt(() => readFileSync(`${proc}/meminfo`, 'utf8')) ?? '';
  const number = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0);
  return {
    total: number('HugePages_Total'),
    free: number('HugePages_Free'),
    kibibytes: number('Hugepagesize'),
  };
}

function accessTo(path: string): HostPicture['vfioFile'] {
  if (!allows(path, constants.F_OK)) {
    return 'missing';
  }
  return isWritable(path) ? 'usable' : 'forbidden';
}

function isWritable(path: string): boolean {
  return allows(path, constants.R_OK | constants.W_OK);
}

function allows(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}
