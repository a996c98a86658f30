// What is wrong with a host, and how to mend it: findings from a picture of it. Pure; host-survey.ts takes the picture,
// commands/doctor.ts prints the findings.

export interface Finding {
  readonly level: 'ok' | 'note' | 'problem';
  /** What was looked at: "IOMMU", "0000:01:00.0 driver". */
  readonly subject: string;
  readonly text: string;
  readonly fix?: string;
}

export interface GroupMember {
  readonly bdf: string;
  readonly driver: string | undefined;
  readonly isBridge: boolean;
}

export interface PfPicture {
  readonly bdf: string;
  readonly exists: boolean;
  /** The PF, where the function is a VF. */
  readonly physicalFunction: string | undefined;
  readonly totalVfs: number | undefined;
  /** VFs enabled now; 'blocked' where the kernel does not answer. */
  readonly enabledVfs: number | 'blocked' | undefined;
  /** VFs that a killed backend noted as its own. */
  readonly ownVfs: number | undefined;
  readonly driver: string | undefined;
  readonly group: string | undefined;
  readonly members: readonly GroupMember[];
  /** Whether the port above separates the functions below it; undefined where that cannot be read. */
  readonly acs: boolean | undefined;
  /** VF BARs without an address. */
  readonly vfBarsWithoutRoom: readonly number[];
  /** Whether this user may write sriov_numvfs and open the group. */
  readonly isPermitted: boolean;
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

export function examine(host: HostPicture): Finding[] {
  return [...examineHost(host), ...host.pfs.flatMap((pf) => examinePf(pf, host))];
}

function examineHost(host: HostPicture): Finding[] {
  return [
    host.iommuGroups > 0
      ? ok('IOMMU', `on, ${host.iommuGroups} groups`)
      : problem(
          'IOMMU',
          'off: there are no IOMMU groups',
          'boot with intel_iommu=on or amd_iommu=on, and turn VT-d or AMD-Vi on in the firmware',
        ),
    host.modules.vfioPci && host.modules.type1
      ? ok('vfio modules', 'loaded')
      : problem(
          'vfio modules',
          `not loaded: ${[host.modules.vfioPci ? '' : 'vfio-pci', host.modules.type1 ? '' : 'vfio_iommu_type1'].filter((name) => name !== '').join(', ')}`,
          'vfio-user-sriov prepare --pf=... does it, or modprobe',
        ),
    examineEnableSriov(host),
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

function examineEnableSriov({ enableSriov }: HostPicture): Finding {
  const subject = 'enable_sriov of vfio-pci';
  if (enableSriov === 'Y') {
    return ok(subject, 'on');
  }
  const fix =
    'vfio-user-sriov prepare --pf=..., or echo 1 > /sys/module/vfio_pci/parameters/enable_sriov';
  return problem(
    subject,
    enableSriov === undefined ? 'unknown: vfio-pci is not loaded' : 'off',
    fix,
  );
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
  if (!pf.exists) {
    return [problem(pf.bdf, 'there is no such PCI function', 'see lspci -D')];
  }
  if (pf.physicalFunction !== undefined) {
    return [problem(pf.bdf, 'it is a virtual function', `use --pf=${pf.physicalFunction}`)];
  }
  if (pf.totalVfs === undefined) {
    return [problem(pf.bdf, 'it has no SR-IOV capability', 'choose a PF that has one')];
  }
  const findings = [ok(about('SR-IOV'), `up to ${pf.totalVfs} VFs`)];
  if (pf.totalVfs === 0) {
    findings[0] = problem(about('SR-IOV'), 'its driver allows no VFs', prepare);
  }
  findings.push(
    pf.driver === 'vfio-pci'
      ? ok(about('driver'), 'vfio-pci')
      : problem(about('driver'), `${pf.driver ?? 'none'} instead of vfio-pci`, prepare),
    examineVfs(pf),
  );
  if (host.iommuGroups > 0) {
    findings.push(examineGroup(pf));
  }
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
    findings.push(
      pf.isPermitted
        ? ok(about('permissions'), 'this user may serve it')
        : problem(
            about('permissions'),
            'this user may not serve it',
            `${prepare} --user=NAME, as root`,
          ),
    );
  }
  if (pf.holder !== undefined) {
    findings.push(note(about('use'), `in use by ${pf.holder}`, 'that is fine, if it is a backend'));
  }
  return findings;
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

function examineGroup({ bdf, group, members }: PfPicture): Finding {
  const subject = `${bdf} IOMMU group`;
  if (group === undefined) {
    return problem(subject, 'none: the IOMMU does not cover it', 'check the firmware and dmesg');
  }
  const others = members.filter((member) => member.bdf !== bdf && !member.isBridge);
  if (others.length === 0) {
    return ok(subject, `${group}, its own`);
  }
  const list = others.map((member) => `${member.bdf} (${member.driver ?? 'no driver'})`).join(', ');
  return problem(subject, `${group} is shared with ${list}`, 'use a slot whose root port has ACS');
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
