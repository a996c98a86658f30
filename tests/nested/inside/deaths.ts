// Story "deaths": QEMU, the backend, the launcher with the glue in it, or a glue alone are killed while VFs are in use.
// Whatever was killed, the rest ends by itself or goes on, and the next start works without a manual step.
import { strict as assert } from 'node:assert';
import { readdirSync, readFileSync } from 'node:fs';
import type { GuestVm } from '../../lab/guest.ts';
import {
  bringUpPf,
  bringUpVf,
  disableVfs,
  enableVfs,
  inGuest,
  pingOutside,
  withAddress,
} from './guest-driver.ts';
import { cli, expectQuietHost, Pf, stuckTasks } from './host.ts';
import { diagnosed, startGuest } from './inner-guest.ts';
import { endParts, startGlue, startParts } from './parts.ts';
import { chapter, randomNumbers, type StoryOptions, until } from './story.ts';

const VICTIMS = ['QEMU', 'backend', 'launcher', 'glue'] as const;
type Victim = (typeof VICTIMS)[number];

/** What the guest is at when it happens; each leaves a command running in the guest. */
const MOMENTS: readonly { readonly name: string; begin(vm: GuestVm): Promise<void> }[] = [
  {
    name: 'VFs are being enabled',
    begin: async (vm) => {
      await inGuest(vm, '(echo 3 > $PF/sriov_numvfs) 2>/dev/null &');
    },
  },
  {
    name: 'packets go through a VF',
    begin: async (vm) => {
      await useVfs(vm);
      await inGuest(
        vm,
        'ip addr add 10.0.2.20/24 dev $(vf_if 0); ping -A 10.0.2.2 >/dev/null 2>&1 &',
      );
    },
  },
  {
    name: 'VFs are being disabled',
    begin: async (vm) => {
      await useVfs(vm);
      await inGuest(vm, '(echo 0 > $PF/sriov_numvfs) 2>/dev/null &');
    },
  },
];
/** The longest that a death may come after the moment has begun. */
const WINDOW_MILLISECONDS = 1_500;

export async function deaths({ count, seed }: StoryOptions): Promise<void> {
  const random = randomNumbers(seed);
  const pf = new Pf('0000:01:00.0');
  cli('prepare', `--pf=${pf.bdf}`);
  for (let point = 1; point <= count; point++) {
    const victim = VICTIMS[(point - 1 + seed) % VICTIMS.length]!;
    const moment = MOMENTS[random(MOMENTS.length)]!;
    const delay = random(WINDOW_MILLISECONDS);
    await chapter(`point ${point}: ${victim} is killed ${delay} ms after ${moment.name}`, () =>
      victim === 'glue' ? glueDies(pf, moment, delay) : partDies(pf, victim, moment, delay),
    );
    assert.deepEqual(await stuckTasks(), []);
  }
  await chapter('after all that a guest starts, and its VFs work', () => everythingWorks(pf));
  await expectQuietHost([pf]);
}

type Moment = (typeof MOMENTS)[number];

async function partDies(pf: Pf, victim: Victim, moment: Moment, delay: number): Promise<void> {
  const vm = await startGuest([`--pf=${pf.bdf}`, '--total-vfs=7']);
  try {
    await bringUpPf(vm);
    await moment.begin(vm);
    await pause(delay);
    process.kill(pidOf(vm, victim), 'SIGKILL');
    // The others end with it, without anybody's help.
    await vm.waitForExit({ timeoutMs: 30_000 });
    await until('all processes have ended', () => processesOf('cli.js').length === 0, 30_000);
    await until('QEMU has ended', () => processesOf('qemu-system').length === 0);
  } catch (error) {
    throw await diagnosed(vm, error);
  } finally {
    await vm.kill();
  }
}

async function glueDies(pf: Pf, moment: Moment, delay: number): Promise<void> {
  const parts = await startParts([pf.bdf]);
  const { vm } = parts;
  try {
    await bringUpPf(vm);
    await moment.begin(vm);
    await pause(delay);
    await parts.glue.kill('SIGKILL');
    parts.glue = await startGlue(parts.qmp, parts.socketPaths);
    // The guest runs on; what was going on when the glue died may have failed.
    await inGuest(vm, 'killall ping 2>/dev/null; wait_for 20 eval "echo 0 > $PF/sriov_numvfs"');
    await until('no VF on the host', () => pf.vfCount === 0);
    await enableVfs(vm, 2);
    await bringUpVf(vm, 1);
    await withAddress(vm, 1, pingOutside);
  } catch (error) {
    throw await diagnosed(vm, error, [parts.glue, ...parts.backends]);
  } finally {
    await endParts(parts);
  }
}

async function everythingWorks(pf: Pf): Promise<void> {
  const vm = await startGuest([`--pf=${pf.bdf}`, '--total-vfs=7']);
  try {
    await bringUpPf(vm);
    await useVfs(vm);
    await withAddress(vm, 0, pingOutside);
    await disableVfs(vm);
    await vm.powerOff();
  } finally {
    await vm.kill();
  }
}

async function useVfs(vm: GuestVm): Promise<void> {
  await enableVfs(vm, 3);
  await bringUpVf(vm, 0);
}

function pidOf(vm: GuestVm, victim: Victim): number {
  if (victim === 'launcher') {
    return vm.pid;
  }
  const pid = processesOf(victim === 'QEMU' ? 'qemu-system' : 'serve').find(
    ({ parent }) => parent === vm.pid,
  )?.pid;
  assert.ok(pid !== undefined, `no ${victim} among the children of ${vm.pid}`);
  return pid;
}

/** Processes of this host, other than this one, that have `text` in their command line. */
function processesOf(text: string): { pid: number; parent: number }[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((name) => {
      try {
        const words = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0');
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        const parent = Number(/\) . (\d+)/.exec(stat)?.[1]);
        return words.slice(0, 3).some((word) => word.includes(text))
          ? [{ pid: Number(name), parent }]
          : [];
      } catch {
        // It has ended meanwhile.
        return [];
      }
    });
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
