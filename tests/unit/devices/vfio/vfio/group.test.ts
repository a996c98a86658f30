// A group's file that cannot be opened: the fix is a command that can be run as it stands.
import { afterEach, beforeEach, expect, it } from 'vitest';
import { openGroup } from '../../../../../backend/devices/vfio/vfio/group.ts';
import { Errno } from '../../../../../protocol/errno.ts';
import { FakeVfioHost, PF } from '../../../../fakes/vfio-host.ts';

let host: FakeVfioHost;
beforeEach(() => {
  host = new FakeVfioHost();
});
afterEach(() => {
  host.remove();
});

function refusedWith(errno: number, bdf: string): Promise<number> {
  const { context } = host;
  const calls = { ...context.calls, open: async () => -errno };
  return openGroup({ ...context, calls }, { group: '7', bdf });
}

it('names the PF to prepare, for the PF itself and for a VF of it', async () => {
  await expect(refusedWith(Errno.ENOENT, PF)).rejects.toThrow(
    `run \`vfio-user-sriov prepare --pf=${PF}\``,
  );
  const vf = host.vfBdf(0);
  host.link(`${host.addFunction(vf, '8')}/physfn`, `../${PF}`);
  await expect(refusedWith(Errno.EACCES, vf)).rejects.toThrow(
    `run \`vfio-user-sriov prepare --pf=${PF} --user=NAME\` once as root`,
  );
});
