// Story "two-pfs": one VM with two PFs, each served by a backend of its own; one glue plugs the VFs of both. The guest
// enables them at the same moment.
import { strict as assert } from 'node:assert';
import { inGuest } from './guest-driver.ts';
import { cli, expectQuietHost, Pf } from './host.ts';
import { diagnosed } from './inner-guest.ts';
import { endParts, startParts } from './parts.ts';
import { chapter } from './story.ts';

/** In the guest each is behind a port of its own, in the same order. */
const GUEST_PFS = ['0000:01:00.0', '0000:02:00.0'];

export async function twoPfs(): Promise<void> {
  const pfs = ['0000:01:00.0', '0000:02:00.0'].map((bdf) => new Pf(bdf));
  for (const pf of pfs) {
    cli('prepare', `--pf=${pf.bdf}`);
  }
  const parts = await chapter('two backends, one guest, one glue', () =>
    startParts(pfs.map(({ bdf }) => bdf)),
  );
  const { vm } = parts;
  try {
    await chapter('igb has both PFs, with their links', () =>
      inGuest(
        vm,
        `load igb; for pf in ${GUEST_PFS.join(' ')}; do
           i=$(ls /sys/bus/pci/devices/$pf/net); ip link set $i up; wait_for 20 has_link $i || exit 1
         done`,
      ),
    );
    for (const counts of [
      [3, 3],
      [7, 2],
    ]) {
      await chapter(`${counts.join(' and ')} VFs are enabled at the same moment`, async () => {
        await inGuest(
          vm,
          counts.map((count, index) => `${write(index, count)} & p${index}=$!`).join('; ') +
            '; wait $p0 && wait $p1',
        );
        assert.deepEqual(
          pfs.map((pf) => pf.vfCount),
          counts,
        );
      });
      await chapter('a VF of each reaches the outer network', () =>
        inGuest(
          vm,
          `load igbvf; for pf in ${GUEST_PFS.join(' ')}; do
             v=/sys/bus/pci/devices/$pf/virtfn1/net; wait_for 20 ls $v && i=$(ls $v) && ip link set $i up &&
             wait_for 30 has_link $i && ip addr add 10.0.2.20/24 dev $i && ping -c 3 -W 5 10.0.2.2 || exit 1
             ip addr flush dev $i
           done`,
        ),
      );
      await chapter('and all are disabled at the same moment', () =>
        inGuest(vm, `${write(0, 0)} & p=$!; ${write(1, 0)} && wait $p`),
      );
    }
    await chapter('the guest powers off', () => vm.powerOff());
  } catch (error) {
    throw await diagnosed(vm, error, [parts.glue, ...parts.backends]);
  } finally {
    await endParts(parts);
  }
  await expectQuietHost(pfs);
}

function write(index: number, count: number): string {
  return `echo ${count} > /sys/bus/pci/devices/${GUEST_PFS[index]}/sriov_numvfs`;
}
