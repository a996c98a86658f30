// A group's file that cannot be opened: the fix is a command that can be run as it stands.
import { afterEach, beforeEach, expect, it } from 'vitest';
import { openDevice, openGroup } from '../../../../../backend/devices/vfio/vfio/group.ts';
import { Errno } from '../../../../../protocol/errno.ts';
import { ManualClock } from '../../../../fakes/manual-clock.ts';
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

it('asks again for five seconds where the kernel keeps the device locked, and then says so', async () => {
  const clock = new ManualClock();
  let asked = 0;
  const calls = {
    ...host.context.calls,
    ioctlLater: async () => {
      asked++;
      return -Errno.EAGAIN;
    },
  };
  const opening = openDevice({ ...host.context, calls, clock }, 3, PF, 'token');
  const refused = expect(opening).rejects.toThrow('the kernel keeps the device locked');
  await clock.pass(5_100, 20);
  await refused;
  expect(asked).toBeGreaterThan(200);
  expect(clock.pending).toBe(0);
});

it('waits for the file of a group that has just appeared', async () => {
  const clock = new ManualClock();
  const answers = [-Errno.ENOENT, -Errno.EACCES];
  const calls = {
    ...host.context.calls,
    open: async () => answers.shift() ?? -Errno.EBUSY,
  };
  const opening = openGroup(
    { ...host.context, calls, clock },
    { group: '7', bdf: PF, isNew: true },
  );
  const refused = expect(opening).rejects.toThrow('in use by');
  await clock.pass(100, 20);
  await refused;
  expect(answers).toEqual([]);
});
