// What is wrong with a host, and how to mend it: findings from a picture of it. Pure; host-survey.ts takes the picture,
// commands/doctor.ts prints the findings.

import {
  ENABLE_SRIOV,
  IOMMU_IS_OFF,
  type PfFacts,
  REQUIREMENTS,
  type Requirement,
} from './requirements.ts';

export interface Finding {
  readonly level: 'ok' | 'note' | 'problem';
  /** What was looked at: "IOMMU", "0000:01:00.0 driver". */
  readonly subject: string;
  readonly text: string;
  readonly fix?: string;
}

export interface PfPicture extends PfFacts {
  /** VFs enabled now; 'blocked' where the kernel does not answer. */
  readonly enabledVfs: number | 'blocked' | undefined;
  /** VFs that a killed backend noted as its own. */
  readonly ownVfs: number | undefined;
  /** Whether the port above separates the functions below it; undefined where that cannot be read. */
  readonly acs: boolean | undefined;
  /** VF BARs without an address. */
  readonly vfBarsWithoutRoom: readonly number[];
  /** What this user may do: open the PF's group and write sriov_numvfs, open the group alone, or not even that. */
  readonly permission: 'all' | 'pf' | 'none';
  readonly holder: string | undefined;
}

export interface HostPicture {
  readonly iommuGroups: number;
  readonly modules: { readonly vfioPci: boolean; readonly type1: boolean };
  readonly enableSriov: string | undefined;
  readonly dmaEntryLimit: number | undefined;
  readonly vfioFile: 'usable' | 'missing' | 'forbidden';
  /** Bytes; undefined = no limit. */
  readonly memlock: bigint | undefined;
  /** As `qemu-system-x86_64 --version` has it, or undefined where there is none. */
  readonly qemuVersion: string | undefined;
  readonly hugepages: { readonly total: number; readonly free: number; readonly kibibytes: number };
  readonly pfs: readonly PfPicture[];
}

/** The first QEMU with the vfio-user-pci device. */
const QEMU_NEEDED = [10, 1] as const;
/** Less than this is no VM's memory. */
const SMALL_MEMLOCK = 256n << 20n;
const FEW_ENTRIES = 1024;

/** For what is asked of every PF alike. */
const NO_PF: PfFacts = {
  bdf: 'ADDRESS',
  exists: false,
  physicalFunction: undefined,
  totalVfs: undefined,
  driver: undefined,
  group: undefined,
  members: [],
  enableSriov: undefined,
};

export function examine(host: HostPicture): Finding[] {
  return [...examineHost(host), ...host.pfs.flatMap((pf) => examinePf(pf, host))];
}

function examineHost(host: HostPicture): Finding[] {
  const [{ bdf } = NO_PF] = host.pfs;
  return [
    host.iommuGroups > 0
      ? ok('IOMMU', `on, ${host.iommuGroups} groups`)
      : problem('IOMMU', 'off: there are no IOMMU groups', IOMMU_IS_OFF.fix),
    host.modules.vfioPci && host.modules.type1
      ? ok('vfio modules', 'loaded')
      : problem(
          'vfio modules',
          `not loaded: ${[host.modules.vfioPci ? '' : 'vfio-pci', host.modules.type1 ? '' : 'vfio_iommu_type1'].filter((name) => name !== '').join(', ')}`,
          `vfio-user-sriov prepare --pf=${bdf} does it, or modprobe`,
        ),
    findingOf(ENABLE_SRIOV, ENABLE_SRIOV.subject, { ...NO_PF, bdf, enableSriov: host.enableSriov }),
    examineVfioFile(host.vfioFile),
    host.dmaEntryLimit === undefined || host.dmaEntryLimit >= FEW_ENTRIES
      ? ok('dma_entry_limit', String(host.dmaEntryLimit ?? 'unknown'))
      : problem(
          'dma_entry_limit',
          `${host.dmaEntryLimit} mappings are few for a VM`,
          'echo 65535 > /sys/module/vfio_iommu_type1/parameters/dma_entry_limit',
        ),
    host.memlock === undefined || host.memlock >= SMALL_MEMLOCK
      ? ok('memlock', host.memlock === undefined ? 'no limit' : `${host.memlock >> 20n} MiB`)
      : problem(
          'memlock',
          `this user may lock ${host.memlock >> 10n} KiB; a VM's whole memory must be locked`,
          'ulimit -l unlimited, or LimitMEMLOCK=infinity in a systemd unit',
        ),
    examineQemu(host.qemuVersion),
    host.hugepages.total > 0
      ? ok(
          'hugepages',
          `${host.hugepages.free} of ${host.hugepages.total} free, ${host.hugepages.kibibytes} KiB each`,
        )
      : note(
          'hugepages',
          'none; a VM starts faster with them',
          'sysctl vm.nr_hugepages=N and -object memory-backend-memfd,hugetlb=on,share=on',
        ),
  ];
}

function examineVfioFile(state: HostPicture['vfioFile']): Finding {
  if (state === 'usable') {
    return ok('/dev/vfio/vfio', 'can be opened');
  }
  return state === 'missing'
    ? problem('/dev/vfio/vfio', 'is missing', 'modprobe vfio-pci')
    : problem('/dev/vfio/vfio', 'cannot be opened by this user', 'chmod 0666 /dev/vfio/vfio');
}

function examineQemu(version: string | undefined): Finding {
  const fix = 'install QEMU 10.1 or later (Debian 13: trixie-backports)';
  if (version === undefined) {
    return note('QEMU', 'qemu-system-x86_64 is not in the path', fix);
  }
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const isNew = major > QEMU_NEEDED[0] || (major === QEMU_NEEDED[0] && minor >= QEMU_NEEDED[1]);
  return isNew ? ok('QEMU', version) : problem('QEMU', `${version} has no vfio-user-pci`, fix);
}

function examinePf(pf: PfPicture, host: HostPicture): Finding[] {
  const about = (subject: string) => `${pf.bdf} ${subject}`;
  const prepare = `vfio-user-sriov prepare --pf=${pf.bdf}`;
  const lack = REQUIREMENTS.find((each) => each.stage === 'function' && each.lack(pf))?.lack(pf);
  if (lack !== undefined) {
    return [problem(pf.bdf, lack.what, lack.fix)];
  }
  const findings = REQUIREMENTS.filter(
    (each) =>
      each.stage !== 'function' &&
      // These are the host's, and told of it.
      each !== ENABLE_SRIOV &&
      (host.iommuGroups > 0 || each.stage !== 'prepare'),
  ).flatMap((each) =>
    each.met?.(pf) === undefined && each.lack(pf) === undefined
      ? []
      : [findingOf(each, about(each.subject), pf)],
  );
  findings.push(examineVfs(pf));
  if (pf.acs !== undefined) {
    findings.push(
      pf.acs
        ? ok(about('ACS'), 'the port above it separates its functions')
        : note(
            about('ACS'),
            'the port above it has none: VFs may share one IOMMU group',
            'use a slot whose root port has ACS',
          ),
    );
  }
  findings.push(
    pf.vfBarsWithoutRoom.length === 0
      ? ok(about('address space'), 'all VF BARs have theirs')
      : problem(
          about('address space'),
          `VF BAR ${pf.vfBarsWithoutRoom.join(', ')} has none: VFs cannot be enabled`,
          'boot with pci=realloc, or turn on SR-IOV and "Above 4G decoding" in the firmware',
        ),
  );
  if (pf.driver === 'vfio-pci') {
    findings.push(permissionFinding(about('permissions'), pf.permission, prepare));
  }
  if (pf.holder !== undefined) {
    findings.push(note(about('use'), `in use by ${pf.holder}`, 'that is fine, if it is a backend'));
  }
  return findings;
}

function permissionFinding(
  subject: string,
  permission: PfPicture['permission'],
  prepare: string,
): Finding {
  switch (permission) {
    case 'all':
      return ok(subject, 'this user may serve it');
    case 'pf':
      return note(
        subject,
        'this user may serve it, with VFs from root’s opener and writer',
        'serve --privileged=FOLDER; to do without them: prepare --user without --privileged',
      );
    case 'none':
      return problem(subject, 'this user may not serve it', `${prepare} --user=NAME, as root`);
  }
}

function examineVfs({ bdf, enabledVfs, ownVfs, holder }: PfPicture): Finding {
  const subject = `${bdf} VFs`;
  const path = `/sys/bus/pci/devices/${bdf}/sriov_numvfs`;
  if (enabledVfs === 'blocked') {
    return problem(
      subject,
      'the kernel is removing VFs and waits for somebody to let go of one',
      'dmesg names the VF; end the process that holds it',
    );
  }
  if (enabledVfs === undefined || enabledVfs === 0) {
    return ok(subject, 'none enabled');
  }
  if (holder !== undefined) {
    return ok(subject, `${enabledVfs} enabled`);
  }
  if (ownVfs !== undefined) {
    return note(subject, `${enabledVfs} left by a killed backend`, 'the next start removes them');
  }
  return problem(subject, `${enabledVfs} left over from somebody else`, `echo 0 > ${path}`);
}

function findingOf(requirement: Requirement, subject: string, pf: PfFacts): Finding {
  const lack = requirement.lack(pf);
  return lack === undefined
    ? ok(subject, requirement.met?.(pf) ?? '')
    : problem(subject, lack.what, lack.fix);
}

function ok(subject: string, text: string): Finding {
  return { level: 'ok', subject, text };
}

function note(subject: string, text: string, fix: string): Finding {
  return { level: 'note', subject, text, fix };
}

function problem(subject: string, text: string, fix: string): Finding {
  return { level: 'problem', subject, text, fix };
}
