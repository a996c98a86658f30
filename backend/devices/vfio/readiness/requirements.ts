// What a PF needs to be served: one list, in the order in which its lack shows. `serve` and `prepare` refuse a PF by the
// first that is not met, `doctor` tells all of them.
import { Errno } from '../../../../protocol/errno.ts';
import { HostError } from '../../../device/physical-device.ts';
import { moduleParameter, PciFunctionFolder } from '../sysfs.ts';

export interface GroupMember {
  readonly bdf: string;
  readonly driver: string | undefined;
  readonly isBridge: boolean;
}

/** What the list looks at; as sysfs has it. */
export interface PfFacts {
  readonly bdf: string;
  readonly exists: boolean;
  /** The PF, where the function is a VF. */
  readonly physicalFunction: string | undefined;
  readonly totalVfs: number | undefined;
  readonly driver: string | undefined;
  readonly group: string | undefined;
  readonly members: readonly GroupMember[];
  /** vfio-pci's parameter; undefined where the module is not loaded. */
  readonly enableSriov: string | undefined;
}

/** What is wrong, and what to do about it. */
export interface Lack {
  readonly what: string;
  readonly fix: string;
}

export interface Requirement {
  /** What is looked at, of the PF. */
  readonly subject: string;
  /** `function`: without it there is nothing else to look at; `prepare` insists on it, too; `serve`: prepare provides it. */
  readonly stage: 'function' | 'prepare' | 'serve';
  readonly errno: number;
  /** Undefined where it is met. */
  lack(pf: PfFacts): Lack | undefined;
  /** How it is met, where that is worth a word. */
  readonly met?: (pf: PfFacts) => string | undefined;
}

export const IOMMU_IS_OFF: Lack = {
  what: 'it has no IOMMU group: the IOMMU is off, or does not cover it',
  fix: 'boot with intel_iommu=on or amd_iommu=on, and turn VT-d or AMD-Vi on in the firmware',
};

/** The one that is the host's, and so every PF's. */
export const ENABLE_SRIOV: Requirement = {
  subject: 'enable_sriov of vfio-pci',
  stage: 'serve',
  errno: Errno.EPERM,
  lack: ({ bdf, enableSriov }) =>
    lackUnless(
      enableSriov === 'Y',
      enableSriov === undefined
        ? 'vfio-pci is not loaded'
        : 'vfio-pci is loaded with enable_sriov off',
      prepareFix(bdf),
    ),
  met: () => 'on',
};

export const REQUIREMENTS: readonly Requirement[] = [
  {
    subject: '',
    stage: 'function',
    errno: Errno.ENODEV,
    lack: ({ exists }) =>
      lackUnless(exists, 'there is no such PCI function', 'see `lspci -D` for those there are'),
  },
  {
    subject: '',
    stage: 'function',
    errno: Errno.EINVAL,
    lack: ({ physicalFunction: pf }) =>
      lackUnless(pf === undefined, 'it is a virtual function', `use the PF: --pf=${pf}`),
  },
  {
    subject: '',
    stage: 'function',
    errno: Errno.ENOTSUP,
    lack: ({ totalVfs }) =>
      lackUnless(
        totalVfs !== undefined,
        'it has no SR-IOV capability, or the kernel does not use it',
        'choose a PF that has one, and a kernel with CONFIG_PCI_IOV',
      ),
  },
  {
    subject: 'IOMMU group',
    stage: 'prepare',
    errno: Errno.ENODEV,
    lack: ({ group }) => (group === undefined ? IOMMU_IS_OFF : undefined),
  },
  {
    subject: 'driver',
    stage: 'serve',
    errno: Errno.EBUSY,
    lack: ({ bdf, driver }) =>
      lackUnless(
        driver === 'vfio-pci',
        `it has ${driver === undefined ? 'no driver' : `the driver ${driver}`}, not vfio-pci`,
        prepareFix(bdf),
      ),
    met: () => 'vfio-pci',
  },
  {
    subject: 'SR-IOV',
    stage: 'serve',
    errno: Errno.EPERM,
    lack: ({ bdf, totalVfs }) =>
      lackUnless(totalVfs !== 0, 'its driver allows no VFs', prepareFix(bdf)),
    met: ({ totalVfs }) => `up to ${totalVfs} VFs`,
  },
  {
    subject: 'isolation',
    stage: 'prepare',
    errno: Errno.EPERM,
    lack(pf) {
      const list = neighbours(pf).map(({ bdf, driver }) => `${bdf} (${driver ?? 'no driver'})`);
      return lackUnless(
        list.length === 0,
        `it shares its IOMMU group ${pf.group} with ${list.join(', ')}`,
        'put the card into a slot whose root port has ACS',
      );
    },
    met: ({ group }) => (group === undefined ? undefined : `IOMMU group ${group} is its own`),
  },
  ENABLE_SRIOV,
];

/** What sysfs says of a function. */
export function factsOf(pf: PciFunctionFolder, sysfs: string): PfFacts {
  return {
    bdf: pf.bdf,
    exists: pf.exists(),
    physicalFunction: pf.physicalFunction,
    totalVfs: pf.numberOf('sriov_totalvfs'),
    driver: pf.driver,
    group: pf.iommuGroup,
    members: pf.groupMembers().map((member) => {
      const { driver, isBridge } = pf.sibling(member);
      return { bdf: member, driver, isBridge };
    }),
    enableSriov: moduleParameter(sysfs, 'vfio_pci', 'enable_sriov'),
  };
}

/** Gives the PF's IOMMU group. @throws HostError by the first requirement of the stage that is not met */
export function insist(sysfs: string, bdf: string, stage: 'prepare' | 'serve'): string {
  const pf = new PciFunctionFolder(sysfs, bdf);
  const facts = factsOf(pf, sysfs);
  for (const requirement of REQUIREMENTS) {
    const lack = requirement.lack(facts);
    const isMeant = stage === 'serve' || requirement.stage !== 'serve';
    if (isMeant && lack !== undefined) {
      throw new HostError('open', requirement.errno, pf.path, lack.what, lack.fix);
    }
  }
  return facts.group!;
}

/** Other functions that the IOMMU does not tell apart from this one. */
function neighbours({ bdf, members }: PfFacts): GroupMember[] {
  return members.filter((member) => member.bdf !== bdf && !member.isBridge);
}

function lackUnless(isMet: boolean, what: string, fix: string): Lack | undefined {
  return isMet ? undefined : { what, fix };
}

function prepareFix(bdf: string): string {
  return `run \`vfio-user-sriov prepare --pf=${bdf}\` as root`;
}
