// Story "igb": the guest's igb enables VFs on the host's card, igbvf uses them, and packets flow through the kernel's
// IOMMU and interrupts. Measures, in the same run, how long the guest stands still and what its drivers notice.
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
  readStatusRegister,
  transferOutside,
  withAddress,
} from './guest-driver.ts';
import { bareEnable, cli, expectQuietHost, Pf, shell } from './host.ts';
import { diagnosed, makingReports, pauseReports, startGuest } from './inner-guest.ts';
import { chapter, figure, tell } from './story.ts';

const VFS = 3;
const TRANSFER_BYTES = 10 * 1024 * 1024;

export async function igb(): Promise<void> {
  const pf = new Pf('0000:01:00.0');
  const bare = await chapter("the host's own igb enables 2 VFs, for comparison", () =>
    bareEnable(pf, 2),
  );
  await chapter('`prepare` gives the PF to vfio-pci', async () => {
    cli('prepare', `--pf=${pf.bdf}`);
  });
  const vm = await chapter('the guest boots on stock QEMU', () =>
    startGuest([`--pf=${pf.bdf}`, '--total-vfs=7'], 'info'),
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
    readStatusRegister(vm, '$PF'),
  );
  await chapter('igb binds to the PF, by MSI-X, and has its link', () => bringUpPf(vm));
  assert.match(await inGuest(vm, 'cat /proc/interrupts'), /PCI-MSIX-0000:01:00\.0/);
  await chapter('the PF reaches the outer network', () => withAddress(vm, 'pf', pingOutside));

  // Again, because the first time QEMU has the slots nowhere yet, and much of the code has never run.
  for (const again of [false, true]) {
    for (const count of [1, 2, 7]) {
      const enable = await chapter(`the guest enables ${count} VFs`, () => enableVfs(vm, count));
      assert.equal(pf.vfCount, count);
      reportPause(vm, count, again);
      const disable = await chapter('and disables them', () => disableVfs(vm));
      if (count !== 2 || again) {
        continue;
      }
      figure(
        'sriov_numvfs 0 -> 2',
        `${enable} ms in the guest, ${bare.enable} ms on the bare host`,
      );
      figure(
        'sriov_numvfs 2 -> 0',
        `${disable} ms in the guest, ${bare.disable} ms on the bare host`,
      );
    }
  }

  await chapter(`echo ${VFS} > sriov_numvfs`, () => enableVfs(vm, VFS));
  const trapped = await readStatusRegister(vm, '$PF/virtfn0');
  figure('a 4-byte register read', `VF in a slot ${trapped}, PF ${mapped}`);
  for (let vfIndex = 0; vfIndex < VFS; vfIndex++) {
    await chapter(`igbvf binds to VF ${vfIndex}: a MAC from the PF, a link`, () =>
      bringUpVf(vm, vfIndex),
    );
    await chapter(`VF ${vfIndex} reaches the outer network`, () =>
      withAddress(vm, vfIndex, pingOutside),
    );
  }
  tell(shell("grep -E 'vfio-msix' /proc/interrupts | sed 's/  */ /g'"));
  await chapter('10 MB go out through VF 1 and come back unchanged', () =>
    withAddress(vm, 1, () => transferOutside(vm, TRANSFER_BYTES)),
  );
  const ofPf = await packetsPerSecond(vm, 'pf');
  const ofVf = await packetsPerSecond(vm, 0);
  figure('packets sent per second', `VF ${ofVf}, PF ${ofPf}`);
  await chapter('the VFs are disabled again', () => disableVfs(vm));
  assert.equal(pf.vfCount, 0);
}

function reportPause(vm: GuestVm, count: number, again: boolean): void {
  const report = pauseReports(vm).at(-1);
  const making = makingReports(vm).at(-1);
  assert.equal(report?.placedVfs, count);
  assert.equal(making?.count, count);
  const rounded = (value: number): number => Math.round(value);
  figure(
    `pause for ${count} VFs${again ? ' again' : ''}`,
    `${rounded(report.pauseMilliseconds)} ms = stop ${rounded(report.stopMilliseconds)}, ` +
      `placement ${rounded(report.placementMilliseconds)} (${report.placementCommands} commands), ` +
      `backend ${rounded(report.backendMilliseconds)}, cont ${rounded(report.contMilliseconds)}; ` +
      `the host's sriov_numvfs ${making.numVfsMilliseconds}, VF opens ${making.openMilliseconds}`,
  );
}
