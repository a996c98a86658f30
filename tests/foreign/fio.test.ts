// fio with verification, on the NVMe controllers of a PF and a VF at the same time: what it reads back is what it wrote, also in
// the order and at the depth in which a disk is used.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { guestToolFiles } from '../lab/guest-tools.ts';
import { SriovGuest } from '../vm/sriov-guest.ts';

const MINUTE = 60_000;
const VERIFY = '--verify=crc32c --verify_fatal=1 --verify_backlog=64 --do_verify=1';
const JOB = '--direct=1 --ioengine=libaio --iodepth=16 --size=4M --allow_file_create=0 --minimal';
/** fio's terse format, version 3: the fields of a job that was well. */
const TERSE = { error: 4, kilobytesRead: 5, kilobytesWritten: 46 } as const;

let guest: SriovGuest;

beforeAll(async () => {
  guest = await SriovGuest.boot({
    device: ['--device=nvme', '--total-vfs=1'],
    modules: ['nvme'],
    memoryMegabytes: 384,
    files: await guestToolFiles(['fio']),
  });
  await guest.setNumVfs(1);
});

afterAll(async () => {
  await guest?.end();
});

async function diskOf(address: string): Promise<string> {
  return await guest.vm.check(
    `cd /sys/bus/pci/devices/${address} && for try in $(seq 100); do ` +
      'ls -d nvme/nvme*/nvme*n* >/dev/null 2>&1 && break; sleep 0.1; done; basename nvme/nvme*/nvme*n*',
  );
}

it.each([
  ['random blocks of many sizes', '--rw=randrw --bs=512-128k'],
  ['blocks one after the other', '--rw=write --bs=128k'],
])('%s come back as they were written, on PF and VF at once', async (_, how) => {
  const jobs = [await diskOf(guest.pf), await diskOf(guest.vf(0))].map(
    (disk) => `--name=${disk} --filename=/dev/${disk} ${how} ${VERIFY} ${JOB}`,
  );
  const output = await guest.vm.check(`fio ${jobs.join(' ')}`, { timeoutMs: 2 * MINUTE });
  const results = output.split('\n').filter((line) => line.startsWith('3;'));
  expect(results).toHaveLength(2);
  for (const fields of results.map((line) => line.split(';'))) {
    expect(fields[TERSE.error]).toBe('0');
    expect(Number(fields[TERSE.kilobytesRead])).toBeGreaterThan(0);
    expect(Number(fields[TERSE.kilobytesWritten])).toBeGreaterThan(0);
  }
});

it('neither the kernel nor QEMU had anything to complain of', async () => {
  await guest.expectNoComplaints();
});
