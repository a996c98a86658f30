import { expect, it } from 'vitest';
import {
  examine,
  type HostPicture,
  type PfPicture,
} from '../../../../../backend/devices/vfio/readiness/doctor.ts';

const PF: PfPicture = {
  bdf: '0000:01:00.0',
  exists: true,
  physicalFunction: undefined,
  totalVfs: 8,
  enabledVfs: 0,
  ownVfs: undefined,
  driver: 'vfio-pci',
  group: '7',
  members: [
    { bdf: '0000:01:00.0', driver: 'vfio-pci', isBridge: false },
    { bdf: '0000:00:04.0', driver: 'pcieport', isBridge: true },
  ],
  enableSriov: 'Y',
  acs: true,
  vfBarsWithoutRoom: [],
  permission: 'all',
  holder: undefined,
};

const HOST: HostPicture = {
  iommuGroups: 12,
  modules: { vfioPci: true, type1: true },
  enableSriov: 'Y',
  dmaEntryLimit: 65_535,
  vfioFile: 'usable',
  memlock: undefined,
  qemuVersion: '11.1.3',
  hugepages: { total: 4, free: 4, kibibytes: 2048 },
  pfs: [PF],
};

it('a host that is ready has no problem and no note', () => {
  expect(examine(HOST).filter(({ level }) => level !== 'ok')).toEqual([]);
});

const host: [string, Partial<HostPicture>, string][] = [
  ['no IOMMU', { iommuGroups: 0 }, 'IOMMU: off'],
  [
    'no vfio-pci',
    { modules: { vfioPci: false, type1: true } },
    'vfio modules: not loaded: vfio-pci',
  ],
  [
    'enable_sriov off',
    { enableSriov: 'N' },
    'enable_sriov of vfio-pci: vfio-pci is loaded with enable_sriov off',
  ],
  ['no /dev/vfio/vfio', { vfioFile: 'missing' }, '/dev/vfio/vfio: is missing'],
  ['no right to it', { vfioFile: 'forbidden' }, '/dev/vfio/vfio: cannot be opened by this user'],
  ['few mappings', { dmaEntryLimit: 64 }, 'dma_entry_limit: 64 mappings are few'],
  ['little memlock', { memlock: 8n << 20n }, 'memlock: this user may lock 8192 KiB'],
  ['an old QEMU', { qemuVersion: '9.2.0' }, 'QEMU: 9.2.0 has no vfio-user-pci'],
];

const pf: [string, Partial<PfPicture>, string][] = [
  ['that is not there', { exists: false }, ': there is no such PCI function'],
  ['that is a VF', { physicalFunction: '0000:02:00.0' }, ': it is a virtual function'],
  ['without SR-IOV', { totalVfs: undefined }, ': it has no SR-IOV capability'],
  ['whose driver allows no VFs', { totalVfs: 0 }, 'SR-IOV: its driver allows no VFs'],
  ['with its own driver', { driver: 'igb' }, 'driver: it has the driver igb, not vfio-pci'],
  ['with foreign VFs', { enabledVfs: 2 }, 'VFs: 2 left over from somebody else'],
  [
    'whose disable is stuck',
    { enabledVfs: 'blocked' },
    'VFs: the kernel is removing VFs and waits',
  ],
  ['without a group', { group: undefined }, 'IOMMU group: it has no IOMMU group'],
  [
    'with neighbours',
    { members: [...PF.members, { bdf: '0000:01:00.1', driver: 'igb', isBridge: false }] },
    'isolation: it shares its IOMMU group 7 with 0000:01:00.1 (igb)',
  ],
  ['without room', { vfBarsWithoutRoom: [0, 3] }, 'address space: VF BAR 0, 3 has none'],
  ['of another user', { permission: 'none' }, 'permissions: this user may not serve it'],
];

function problems(picture: HostPicture): string[] {
  return examine(picture)
    .filter(({ level, fix }) => level === 'problem' && fix !== undefined)
    .map(({ subject, text }) => `${subject}: ${text}`);
}

it.each(host)(
  'a host with %s has that problem, with a fix, and no other',
  (_name, change, text) => {
    const found = problems({ ...HOST, ...change });
    expect(found).toHaveLength(1);
    expect(found[0]).toContain(text);
  },
);

it('a fix names the PF that was looked at', () => {
  const lacking = { modules: { vfioPci: false, type1: false }, enableSriov: 'N' } as const;
  const fixes = (pfs: PfPicture[]) =>
    examine({ ...HOST, ...lacking, pfs }).flatMap(
      ({ fix }) => /prepare --pf=\S+/.exec(fix ?? '') ?? [],
    );
  expect(fixes([PF]).join()).toBe('prepare --pf=0000:01:00.0,prepare --pf=0000:01:00.0`');
  expect(fixes([]).join()).toBe('prepare --pf=ADDRESS,prepare --pf=ADDRESS`');
});

it.each(pf)('a PF %s has that problem, with a fix, and no other', (_name, change, text) => {
  const found = problems({ ...HOST, pfs: [{ ...PF, ...change }] });
  expect(found).toHaveLength(1);
  expect(found[0]).toContain(text);
});

it.each([
  ['VFs of a killed backend', { enabledVfs: 2, ownVfs: 2 }, 'the next start removes them'],
  ['no ACS above', { acs: false }, 'slot whose root port has ACS'],
  ['a user who may open the PF alone', { permission: 'pf' }, 'serve --privileged=FOLDER'],
  ['somebody using it', { holder: 'pid 4 (node)' }, 'that is fine'],
] satisfies [string, Partial<PfPicture>, string][])(
  '%s is a note, not a problem',
  (_name, change, fix) => {
    const findings = examine({ ...HOST, pfs: [{ ...PF, ...change }] });
    const notes = findings.filter(({ level }) => level !== 'ok');
    expect(notes.map(({ level }) => level)).toEqual(['note']);
    expect(notes[0]?.fix).toContain(fix);
  },
);
