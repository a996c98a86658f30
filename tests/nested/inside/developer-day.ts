// Story "developer-day": what somebody who works on a PF driver does all day. Rounds of loading it, enabling VFs, using
// them, and ending that in the middle of something; the host is looked at after each.
import { strict as assert } from 'node:assert';
import type { GuestVm } from '../../lab/guest.ts';
import {
  bringUpPf,
  bringUpVf,
  disableVfs,
  inGuest,
  pingOutside,
  withAddress,
} from './guest-driver.ts';
import { cli, expectQuietHost, Pf } from './host.ts';
import { diagnosed, startGuest } from './inner-guest.ts';
import { chapter, randomNumbers, type StoryOptions, until } from './story.ts';

const MOST_VFS = 7;

/** What is done to VFs that are enabled: there are none afterwards, without further ado. */
const ENDINGS: readonly {
  readonly name: string;
  run(vm: GuestVm): Promise<unknown>;
}[] = [
  { name: 'disables them', run: (vm) => disableVfs(vm) },
  { name: 'unloads the driver', run: (vm) => inGuest(vm, 'rmmod igb') },
  {
    name: 'resets the PF by FLR, then unloads the driver',
    run: (vm) => inGuest(vm, 'echo 1 > $PF/reset; rmmod igb'),
  },
  { name: 'reboots by sysrq', run: (vm) => crash(vm) },
];

export async function developerDay({ count, seed }: StoryOptions): Promise<void> {
  const random = randomNumbers(seed);
  const pf = new Pf('0000:01:00.0');
  cli('prepare', `--pf=${pf.bdf}`);
  const vm = await chapter('the guest boots', () =>
    startGuest([`--pf=${pf.bdf}`, '--total-vfs=7']),
  );
  try {
    for (let round = 1; round <= count; round++) {
      // So that few rounds see every ending, too.
      const ending = ENDINGS[(round - 1 + seed) % ENDINGS.length]!;
      const vfs = 1 + random(MOST_VFS);
      const isUsed = random(2) === 1;
      const delay = random(2) === 1 ? random(1_500) : undefined;
      await chapter(describe(round, vfs, isUsed, delay, ending.name), () =>
        playRound(vm, { vfs, isUsed, delay, end: ending.run }),
      );
      await until('no VF on the host', () => pf.vfCount === 0);
      await expectQuietHost([pf]);
    }
    await chapter('the guest powers off', () => vm.powerOff());
    await expectQuietHost([pf]);
  } catch (error) {
    throw await diagnosed(vm, error);
  } finally {
    await vm.kill();
  }
}

interface Round {
  readonly vfs: number;
  readonly isUsed: boolean;
  /** Milliseconds after which the end comes while VFs are still being enabled; undefined: they are enabled first. */
  readonly delay: number | undefined;
  end(vm: GuestVm): Promise<unknown>;
}

async function playRound(vm: GuestVm, { vfs, isUsed, delay, end }: Round): Promise<void> {
  await bringUpPf(vm);
  const enable = `echo ${vfs} > $PF/sriov_numvfs`;
  if (delay !== undefined) {
    await inGuest(vm, `(${enable}) 2>/dev/null & usleep ${delay * 1000}`);
  } else {
    await inGuest(vm, enable);
    if (isUsed) {
      const vfIndex = vfs - 1;
      await bringUpVf(vm, vfIndex);
      await withAddress(vm, vfIndex, pingOutside);
    }
  }
  await end(vm);
  // Some endings leave the driver, and one that came too early may leave VFs.
  await inGuest(
    vm,
    `! grep -q '^igbvf ' /proc/modules || rmmod igbvf; ! grep -q '^igb ' /proc/modules || rmmod igb`,
  );
  const left = await inGuest(vm, 'cat $PF/sriov_numvfs');
  assert.equal(left.trim(), '0');
}

/** The guest goes down without a word and comes up again in the same QEMU. */
async function crash(vm: GuestVm): Promise<void> {
  const boot = vm.bootCount + 1;
  vm.run('echo b > /proc/sysrq-trigger', { timeoutMs: 60_000 }).catch(() => {});
  await vm.waitForBoot({ boot, timeoutMs: 180_000 });
}

function describe(
  round: number,
  vfs: number,
  isUsed: boolean,
  delay: number | undefined,
  ending: string,
): string {
  const middle =
    delay !== undefined
      ? `begins to enable ${vfs} VFs, ${delay} ms later`
      : `enables ${vfs} VFs,${isUsed ? ' uses them,' : ''}`;
  return `round ${round}: the guest ${middle} ${ending}`;
}
