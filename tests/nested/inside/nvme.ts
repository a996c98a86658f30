// Story "nvme": the guest's nvme drives the PF, gives the VFs queues and interrupts by the PF's admin commands, as NVMe
// 1.3, "Virtualization Enhancements", wants it, brings them online, and reads and writes through one of them. Without
// multipath, so that each controller's way to the disk is a disk of its own.
import { strict as assert } from 'node:assert';
import { inGuest } from './guest-driver.ts';
import { cli, expectCleanRecording, expectQuietHost, Pf, shell } from './host.ts';
import { diagnosed, startGuest } from './inner-guest.ts';
import { chapter, tell } from './story.ts';

const VFS = 2;
const TRACE = '/tmp/nvme.trace';
const TRANSFER_BYTES = 4 * 1024 * 1024;
/** Virtualization Management, NVMe 1.3, figure "Virtualization Management": actions and resource types. */
const ASSIGN_TO_PRIMARY = 1;
const ASSIGN_TO_SECONDARY = 8;
const ONLINE = 9;
const RESOURCES = { queues: 0, interrupts: 1 };

export async function nvme(): Promise<void> {
  const pf = new Pf('0000:01:00.0');
  cli('prepare', `--pf=${pf.bdf}`);
  const vm = await chapter('the guest boots', () =>
    startGuest([`--pf=${pf.bdf}`, `--trace=${TRACE}`, '--trace-size=16M']),
  );
  const manage = (controller: number, action: number, resource: number, count: number): string =>
    `nvme virt-mgmt /dev/nvme0 -c ${controller} -a ${action} -r ${resource} -n ${count} || exit 1`;
  try {
    await chapter('nvme binds to the PF and has its disk', () =>
      inGuest(vm, 'load nvme-core multipath=N && load nvme && wait_for 20 ls /dev/nvme0n1'),
    );
    await chapter('the PF gives its flexible resources away', () =>
      inGuest(
        vm,
        `${manage(0, ASSIGN_TO_PRIMARY, RESOURCES.queues, 0)}
         ${manage(0, ASSIGN_TO_PRIMARY, RESOURCES.interrupts, 0)}
         echo 1 > /sys/class/nvme/nvme0/reset_controller`,
      ),
    );
    await chapter(`${VFS} VFs are enabled, and nobody binds to them yet`, async () => {
      await inGuest(vm, `echo 0 > $PF/sriov_drivers_autoprobe; echo ${VFS} > $PF/sriov_numvfs`);
      assert.equal(pf.vfCount, VFS);
    });
    await chapter('each gets 2 queue pairs and 2 interrupts, and goes online', () => {
      const each = Array.from({ length: VFS }, (_, vfIndex) => vfIndex + 1).map(
        (controller) =>
          `${manage(controller, ASSIGN_TO_SECONDARY, RESOURCES.queues, 2)}
           ${manage(controller, ASSIGN_TO_SECONDARY, RESOURCES.interrupts, 2)}
           ${manage(controller, ONLINE, 0, 0)}`,
      );
      return inGuest(vm, each.join('\n'));
    });
    await chapter('nvme binds to VF 0, which shows the same disk', () =>
      inGuest(
        vm,
        `echo 1 > $PF/sriov_drivers_autoprobe
         echo $(basename $(readlink $PF/virtfn0)) > /sys/bus/pci/drivers/nvme/bind || exit 1
         wait_for 20 ls $PF/virtfn0/nvme`,
      ),
    );
    await chapter(
      'what is written through VF 0 is read through the PF, and the other way round',
      async () => {
        const output = await inGuest(
          vm,
          `v=/dev/$(ls $PF/virtfn0/nvme)n1; p=/dev/nvme0n1
         head -c ${TRANSFER_BYTES} /dev/urandom > /tmp/a; head -c ${TRANSFER_BYTES} /dev/urandom > /tmp/b
         dd if=/tmp/a of=$v bs=64k conv=fsync 2>/dev/null && dd if=/tmp/b of=$p bs=64k seek=512 conv=fsync 2>/dev/null || exit 1
         echo 3 > /proc/sys/vm/drop_caches
         dd if=$p bs=64k count=64 2>/dev/null | cmp - /tmp/a && dd if=$v bs=64k skip=512 count=64 2>/dev/null | cmp - /tmp/b && echo same`,
        );
        assert.equal(output.trim(), 'same');
        tell(shell("grep -E 'vfio-msix' /proc/interrupts | sed 's/  */ /g'"));
      },
    );
    await chapter('the VFs are disabled', () => inGuest(vm, 'echo 0 > $PF/sriov_numvfs'));
    await chapter('the guest powers off', () => vm.powerOff());
    await expectQuietHost([pf]);
    await chapter('the recording of nvme breaks no rule of the standard', async () =>
      expectCleanRecording(TRACE),
    );
  } catch (error) {
    throw await diagnosed(vm, error);
  } finally {
    await vm.kill();
  }
}
