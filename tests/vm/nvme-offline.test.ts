// VFs of an NVMe device as real SSDs have them: offline until the PF's driver deals resources out, by nvme-cli.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { guestToolFiles } from '../lab/guest-tools.ts';
import { SriovGuest } from './sriov-guest.ts';

const Action = { allocateToPrimary: 1, offline: 7, assign: 8, online: 9 } as const;
const Resource = { queues: 0, interrupts: 1 } as const;
const PRIMARY = 0;
/** The controller of VF 0. */
const SECONDARY = 1;

let guest: SriovGuest;

beforeAll(async () => {
  guest = await SriovGuest.boot({
    device: ['--device=nvme', '--total-vfs=2', '--nvme-vfs=offline', '--namespace-size=16M'],
    modules: ['nvme'],
    memoryMegabytes: 384,
    files: await guestToolFiles(['nvme']),
  });
  await guest.vm.check('for try in $(seq 100); do [ -e /dev/nvme0n1 ] && exit 0; sleep 0.1; done');
});

afterAll(async () => {
  await guest?.end();
});

function manage(action: number, resource = 0, count = 0, controller = SECONDARY): string {
  return `nvme virt-mgmt /dev/nvme0 --cntlid=${controller} --act=${action} --rt=${resource} --nr=${count}`;
}

/** SCS, NVQ and NVI of the secondary controllers. */
async function secondaries(): Promise<number[][]> {
  const list = JSON.parse(await guest.vm.check('nvme list-secondary /dev/nvme0 -o json'));
  return list['secondary-controllers'].map((entry: Record<string, number>) => {
    const [, , state, , queues, interrupts] = Object.values(entry);
    return [state, queues, interrupts];
  });
}

/** Flexible queues and interrupts that the PF has. */
async function ofPrimary(): Promise<number[]> {
  const { vqrfap, virfap } = JSON.parse(
    await guest.vm.check('nvme primary-ctrl-caps /dev/nvme0 -o json'),
  ) as Record<string, number>;
  return [vqrfap!, virfap!];
}

it('a VF that is enabled is offline, and the driver does not get it ready', async () => {
  await guest.setNumVfs(2);
  expect(await secondaries()).toEqual([
    [0, 0, 0],
    [0, 0, 0],
  ]);
  await guest.vm.waitForConsole(/Device not ready; aborting initialisation, CSTS=0x2/);
  await guest.vm.check(`! [ -e /sys/bus/pci/devices/${guest.vf(0)}/driver ]`);
});

it('it cannot be online before it has resources', async () => {
  const { status, output } = await guest.vm.run(manage(Action.online));
  expect(status).not.toBe(0);
  expect(output).toMatch(/secondary controller state/i);
});

it('with resources and online it is a controller with a namespace', async () => {
  await guest.vm.check(manage(Action.assign, Resource.queues, 3));
  await guest.vm.check(manage(Action.assign, Resource.interrupts, 3));
  await guest.vm.check(manage(Action.online));
  expect(await secondaries()).toEqual([
    [1, 3, 3],
    [0, 0, 0],
  ]);
  await guest.vm.check(`echo ${guest.vf(0)} > /sys/bus/pci/drivers/nvme/bind`);
  const size = await guest.vm.check(
    `cd /sys/bus/pci/devices/${guest.vf(0)}/nvme/nvme*/; for try in $(seq 100); do [ -e nvme*n* ] && break; sleep 0.1; done; cat nvme*n*/size`,
  );
  expect(Number(size)).toBe(16 * 2048);
});

it('it is offline again, with nothing, once the PF’s controller was reset', async () => {
  await guest.vm.check('nvme reset /dev/nvme0');
  expect(await secondaries()).toEqual([
    [0, 0, 0],
    [0, 0, 0],
  ]);
});

it('the PF has other resources of its own once its function was reset', async () => {
  await guest.setNumVfs(0);
  await guest.vm.check(manage(Action.allocateToPrimary, Resource.queues, 2, PRIMARY));
  await guest.vm.check(manage(Action.allocateToPrimary, Resource.interrupts, 1, PRIMARY));
  expect(await ofPrimary()).toEqual([9, 9]);
  await guest.vm.check(`echo 1 > /sys/bus/pci/devices/${guest.pf}/reset`);
  await guest.vm.check(
    'for try in $(seq 100); do grep -q live /sys/class/nvme/nvme0/state && exit 0; sleep 0.1; done; exit 1',
  );
  expect(await ofPrimary()).toEqual([2, 1]);
  // 0's based: 8 + 2 without the admin queue's.
  expect(await guest.vm.check('nvme get-feature /dev/nvme0 --feature-id=7')).toMatch(
    /value:0x0*80008/,
  );
});

it('neither the kernel nor QEMU had anything to complain of', async () => {
  await guest.expectNoComplaints();
});
