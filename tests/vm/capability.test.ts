// A guest Linux in stock QEMU finds the SR-IOV capability of a loopback PF behind a root port and makes VFs from it.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ALL_ONES, Bar, Sriov, SriovGuest } from './sriov-guest.ts';

const SRIOV_CAPABILITY = 0x10;
const ARI_CAPABILITY = 0x0e;
const TOTAL_VFS = 7;
const VF_BAR_BYTES = 0x4000;
const ROUNDS = 20;

let guest: SriovGuest;

beforeAll(async () => {
  guest = await SriovGuest.boot();
});

afterAll(async () => {
  await guest?.end();
});

it('the guest finds the PF with its own IDs and every VF that it may have', async () => {
  const { vm, sysfs } = guest;
  expect(await vm.check(`cat ${sysfs}/vendor ${sysfs}/device ${sysfs}/sriov_totalvfs`)).toBe(
    `0x1d0f\n0x0053\n${TOTAL_VFS}`,
  );
  expect(await guest.extendedCapability(ARI_CAPABILITY)).toBeGreaterThan(0);
});

it('pci-pf-stub binds the PF by itself', async () => {
  expect(await guest.vm.check(`basename $(readlink ${guest.sysfs}/driver)`)).toBe('pci-pf-stub');
});

it('no dormant slot is found by the guest', async () => {
  expect(await guest.vm.check('ls /sys/bus/pci/devices')).not.toMatch(/01:00\.[1-7]/);
});

it('the SR-IOV capability holds what the standard says of one that was just enumerated', async () => {
  const { pf } = guest;
  const at = await guest.extendedCapability(SRIOV_CAPABILITY);
  const word = async (offset: number) => await guest.readConfig(pf, at + offset, 2);
  const dword = async (offset: number) => await guest.readConfig(pf, at + offset, 4);
  expect({
    version: ((await dword(0)) >>> 16) & 0xf,
    capabilities: await dword(0x04),
    control: await word(Sriov.control),
    status: await word(0x0a),
    initialVfs: await word(0x0c),
    totalVfs: await word(Sriov.totalVfs),
    numVfs: await word(Sriov.numVfs),
    dependencyLink: await guest.readConfig(pf, at + 0x12, 1),
    firstVfOffset: await word(0x14),
    vfStride: await word(0x16),
    vfDeviceId: await word(0x1a),
    supportedPageSizes: await dword(0x1c),
    systemPageSize: await dword(0x20),
    migrationStateArray: await dword(0x3c),
  }).toEqual({
    version: 1,
    capabilities: 0,
    // ARI Capable Hierarchy: the guest found ARI in the root port and in the PF.
    control: 0x10,
    status: 0,
    initialVfs: TOTAL_VFS,
    totalVfs: TOTAL_VFS,
    numVfs: 0,
    dependencyLink: 0,
    firstVfOffset: 1,
    vfStride: 1,
    vfDeviceId: 0x0054,
    supportedPageSizes: 0x553,
    systemPageSize: 1,
    migrationStateArray: 0,
  });
});

it('the guest has given the VFs of BAR 0 room for all of them', async () => {
  const [start, end] = (await guest.vm.check(`sed -n 8p ${guest.sysfs}/resource`)).split(' ');
  expect(Number(start)).toBeGreaterThan(0);
  expect(Number(end) - Number(start) + 1).toBe(TOTAL_VFS * VF_BAR_BYTES);
});

it('pci-pf-stub takes the PF', async () => {
  await guest.bindDriver('pci-pf-stub');
});

it('every VF appears at its routing ID with a slice of the VF BARs of its own', async () => {
  await guest.setNumVfs(TOTAL_VFS);
  const expected = Array.from({ length: TOTAL_VFS }, (_, vfIndex) => guest.vf(vfIndex));
  expect(await guest.virtfns()).toEqual(expected);
  const room = await guest.barAddress(guest.pf, 7);
  for (const [vfIndex, vf] of expected.entries()) {
    expect(await guest.barAddress(vf)).toBe(room + vfIndex * VF_BAR_BYTES);
  }
});

it('a VF has the IDs that the PF tells, and none in its own config space', async () => {
  const vf = guest.vf(0);
  const device = `/sys/bus/pci/devices/${vf}`;
  expect(await guest.vm.check(`cat ${device}/vendor ${device}/device`)).toBe('0x1d0f\n0x0054');
  expect(await guest.readConfig(vf, 0, 4)).toBe(0xffffffff);
  expect(await guest.vm.check(`basename $(readlink ${device}/physfn)`)).toBe(guest.pf);
});

it("each VF's BAR shows that VF's own registers", async () => {
  await guest.expectVfContents(TOTAL_VFS);
});

it('what is written to one function is seen by no other', async () => {
  const functions = [guest.pf, ...Array.from({ length: TOTAL_VFS }, (_, vf) => guest.vf(vf))];
  for (const [index, each] of functions.entries()) {
    await guest.writeBar(each, Bar.scratch, 0xa000 + index);
    await guest.writeBar(each, Bar.memory, 0xb000 + index);
  }
  for (const [index, each] of functions.entries()) {
    expect(Number(await guest.readBar(each, Bar.scratch))).toBe(0xa000 + index);
    expect(Number(await guest.readBar(each, Bar.memory))).toBe(0xb000 + index);
  }
});

it('VF BARs read all-ones while VF Memory Space Enable is off', async () => {
  const control = (await guest.extendedCapability(SRIOV_CAPABILITY)) + Sriov.control;
  const before = await guest.readConfig(guest.pf, control, 2);
  await guest.writeConfig(guest.pf, control, 2, before & ~0x8);
  expect(await guest.readBar(guest.vf(1), Bar.magic)).toBe(ALL_ONES);
  await guest.writeConfig(guest.pf, control, 2, before);
  await guest.expectVfContents(TOTAL_VFS);
});

it('NumVFs cannot be written while VFs are enabled', async () => {
  const numVfs = (await guest.extendedCapability(SRIOV_CAPABILITY)) + Sriov.numVfs;
  await guest.writeConfig(guest.pf, numVfs, 2, 2);
  expect(await guest.readConfig(guest.pf, numVfs, 2)).toBe(TOTAL_VFS);
});

it('after disabling, no VF is left, and their BARs read all-ones', async () => {
  const room = await guest.barAddress(guest.pf, 7);
  const magics = Array.from(
    { length: TOTAL_VFS },
    (_, vfIndex) => `pci-function memory ${room + vfIndex * VF_BAR_BYTES + Bar.magic}`,
  ).join('; ');
  const before = (await guest.vm.check(magics)).split('\n');
  expect(new Set(before)).not.toContain(ALL_ONES);
  await guest.setNumVfs(0);
  expect(await guest.virtfns()).toEqual([]);
  const after = (await guest.vm.check(magics)).split('\n');
  expect(after).toEqual(before.map(() => ALL_ONES));
});

it('a slot that kept its place gives way to VFs that come up there', async () => {
  const room = await guest.barAddress(guest.pf, 7);
  const vfBar0 = (await guest.extendedCapability(SRIOV_CAPABILITY)) + Sriov.vfBar0;
  const numbersAt = async (slices: number): Promise<string[]> => {
    const reads = Array.from(
      { length: slices },
      (_, slice) => `pci-function memory ${room + slice * VF_BAR_BYTES + Bar.functionNumber}`,
    );
    return (await guest.vm.check(reads.join('; '))).split('\n');
  };
  const low = await guest.readConfig(guest.pf, vfBar0, 4);
  // One slice further on: VF 0 comes up where VF 1 was, VF 1 where VF 2 was, and VF 3 keeps its old place, unseen.
  await guest.writeConfig(guest.pf, vfBar0, 4, low + VF_BAR_BYTES);
  await guest.setNumVfs(2);
  expect((await numbersAt(4)).slice(1)).toEqual(['0x00000001', '0x00000002', ALL_ONES]);
  await guest.setNumVfs(0);
  await guest.writeConfig(guest.pf, vfBar0, 4, low);
  await guest.setNumVfs(TOTAL_VFS);
  await guest.expectVfContents(TOTAL_VFS);
  await guest.setNumVfs(0);
});

/** Shell commands that make VFs, print their number and each one's function number, and take them away again. */
function comeAndGo(count: number): string {
  const { sysfs } = guest;
  const vfs = Array.from({ length: count }, (_, vfIndex) => guest.vf(vfIndex)).join(' ');
  return `
    echo ${count} > ${sysfs}/sriov_numvfs || exit 1
    ls -d ${sysfs}/virtfn* | wc -l
    for vf in ${vfs}; do pci-function bar $vf ${Bar.functionNumber}; done
    echo 0 > ${sysfs}/sriov_numvfs || exit 1
    ls -d ${sysfs}/virtfn* 2>/dev/null | wc -l`;
}

it(`VFs come and go in numbers of 1, 4 and ${TOTAL_VFS}, ${ROUNDS} times`, async () => {
  const counts = [1, 4, TOTAL_VFS];
  const expected = counts.flatMap((count) => [
    count,
    ...Array.from({ length: count }, (_, vfIndex) => 1 + vfIndex),
    0,
  ]);
  for (let round = 0; round < ROUNDS; round++) {
    const output = await guest.vm.check(counts.map(comeAndGo).join('\n'));
    expect(output.split('\n').map(Number)).toEqual(expected);
  }
}, 600_000);

it('neither the kernel nor QEMU had anything to complain of', async () => {
  await guest.expectNoComplaints();
});

it('the launcher ends with the status of QEMU when the guest switches off', async () => {
  expect(await guest.vm.powerOff()).toEqual({ code: 0, signal: null });
});
