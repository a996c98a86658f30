// Story 1: an unmodified guest's igb enables VFs on the host's real card, and igbvf uses them.
import { strict as assert } from 'node:assert';
import { bringUpPf, bringUpVf, enableVfs, inGuest, pingThroughVf } from './guest-driver.ts';
import { cli, expectQuietHost, Pf } from './host.ts';
import { pauseReports, startGuest } from './inner-guest.ts';
import { chapter, figure, tell } from './story.ts';

export async function igb(): Promise<void> {
  const pf = new Pf('0000:01:00.0');
  await chapter('prepare gives the PF to vfio-pci', async () => {
    tell(cli('prepare', `--pf=${pf.bdf}`).trim());
  });
  const vm = await chapter('the guest boots on stock QEMU', () =>
    startGuest([`--pf=${pf.bdf}`, '--total-vfs=7']),
  );
  try {
    await chapter("the guest's igb has the PF, with its link", () => bringUpPf(vm));
    const took = await chapter('echo 2 > sriov_numvfs', () => enableVfs(vm, 2));
    tell(`${took} ms`);
    tell(JSON.stringify(pauseReports(vm)));
    await chapter('igbvf', () => bringUpVf(vm, 0));
    tell(await pingThroughVf(vm, 0));
    await chapter('igbvf', () => bringUpVf(vm, 1));
    tell(await pingThroughVf(vm, 1));
    await chapter('disable', () => inGuest(vm, 'echo 0 > $PF/sriov_numvfs'));
    await chapter('power off', () => vm.powerOff());
    await expectQuietHost([pf]);
  } finally {
    if (process.env.KEEP)
      await vm
        .run('dmesg | tail -40')
        .then((r) => tell(r.output))
        .catch(() => {});
    await vm.kill();
    tell(vm.processOutput);
  }
  assert.ok(figure);
}
