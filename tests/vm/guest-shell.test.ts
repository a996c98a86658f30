// `npm run guest`: a shell in a guest on this terminal, with a PF bound to its driver and what it takes to look at it.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { GuestVm } from '../lab/guest.ts';
import { guestArguments } from '../lab/guest-arguments.ts';
import { writeInitramfs } from '../lab/initramfs.ts';
import { type Lab, lab } from '../lab/lab.ts';
import { ModuleTree } from '../lab/modules.ts';
import { BY_A_GUEST, BY_A_PROGRAM } from '../patience.ts';
import { cpuMillisecondsOf } from '../process-tree.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/dist\/$/, '/');
const LAB = join(ROOT, 'dist/tests/lab/cli.js');
const PROMPT = 'guest # ';
const BOOT_MILLISECONDS = 120_000;
const COMMAND_MILLISECONDS = 30_000;
/** The shell is ready after 15 s on two CPUs that have nothing else to do, and on which this is a bare boot's work in seconds. */
const BARE_SECONDS = 5;
const MOST_BARE_BOOTS = 15 / BARE_SECONDS;
/** A module that depends on nothing and that this guest does not load by itself. */
const MODULE = 'dummy';

let folder: string;
let guest: ChildProcess;
let output = '';
let ended: Promise<unknown[]>;
/** Seconds of the CPU, for a guest of the same kernel in which there is nothing. */
let bareBoot: number;
/** From the command to the shell's prompt, in seconds: what a clock shows, what all of it computed, and what the guest waited meanwhile. */
let ready: { readonly clock: number; readonly computed: number; readonly waited: number };

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'guest-shell-'));
  await writeFile(join(folder, 'greeting'), 'hello from outside\n');
  const paths = await lab();
  bareBoot = await workOfBareBoot(paths);
  const { modules, busybox } = paths;
  const [module] = await (await ModuleTree.open(modules, busybox)).closureOf(MODULE);
  await writeFile(join(folder, 'my_card.ko'), module!.object);
  const options = ['--device=nvme', '--vfs=2', `--share=${folder}`];
  const own = `--module=${join(folder, 'my_card.ko')}`;
  const fault = '--fault=nvme:status=unrecovered-read-error@opcode=compare';
  const began = performance.now();
  guest = spawn(process.execPath, [LAB, 'guest', ...options, own, '--', '--total-vfs=4', fault], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  ended = once(guest, 'exit');
  guest.stdout!.setEncoding('utf8').on('data', (text: string) => {
    output += text.replaceAll('\r', '');
  });
  await shown(PROMPT, BOOT_MILLISECONDS);
  const clock = (performance.now() - began) / 1000;
  const computed = cpuMillisecondsOf(guest.pid!) / 1000;
  const [, idle] = /\d+\.\d+ (\d+\.\d+)\n/.exec(await type('cat /proc/uptime'))!;
  ready = { clock, computed, waited: Number(idle) };
});

afterAll(async () => {
  if (guest?.exitCode === null) {
    guest.kill();
    await ended;
  }
  await rm(folder, { recursive: true, force: true });
});

async function workOfBareBoot({ kernel, qemu, busybox, modules }: Lab): Promise<number> {
  const initrd = await writeInitramfs({
    file: join(folder, 'initrd'),
    busybox,
    modulesFolder: modules,
    modules: [],
  });
  const vm = await GuestVm.start({ command: qemu, args: guestArguments({ kernel, initrd }) });
  try {
    await vm.waitForBoot();
    return cpuMillisecondsOf(vm.pid) / 1000;
  } finally {
    await vm.kill();
    await rm(initrd);
  }
}

async function shown(text: string, milliseconds: number, from = 0): Promise<void> {
  const deadline = performance.now() + milliseconds;
  while (!output.includes(text, from)) {
    if (performance.now() > deadline || guest.exitCode !== null) {
      throw new Error(`"${text}" was not shown; the terminal so far:\n${output}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Types a command, and gives what is shown until the next prompt. */
async function type(command: string): Promise<string> {
  const before = output.length;
  guest.stdin!.write(`${command}; echo "done"=$?\n`);
  await shown('done=', COMMAND_MILLISECONDS, before);
  await shown(PROMPT, COMMAND_MILLISECONDS, output.indexOf('done=', before));
  return output.slice(before);
}

it('says what is there, and how to leave it', () => {
  expect(output).toContain('The PF, nvme, is 0000:01:00.0; its driver: nvme.');
  expect(output).toContain('Ctrl-A x');
});

// A clock shows what else the machine does, and a CPU that others want, too, takes longer for the same work: so does a bare boot.
it('is ready within 15 seconds, counted in bare boots', () => {
  const [clock, computed, waited] = Object.values(ready).map((each) => each.toFixed(1));
  console.log(
    `the shell was ready after ${clock} s: ${computed} s of work and ${waited} s of waiting; a bare boot is ${bareBoot.toFixed(1)} s of work`,
  );
  expect(bareBoot).toBeGreaterThan(0);
  expect((ready.computed + ready.waited) / bareBoot).toBeLessThanOrEqual(MOST_BARE_BOOTS);
});

it('has the PF and VFs that were asked for, and tools to look at them', async () => {
  const list = await type('lspci -nn');
  expect(list.match(/Non-Volatile memory controller/g)).toHaveLength(3);
  expect(list).toContain('done=0');
  expect(await type('nvme list-secondary /dev/nvme0 | head -n 3')).toContain('done=0');
  expect(await type('setpci -s 01:00.0 CLASS_PROG=02 CLASS_DEVICE')).toContain('0108');
  expect(await type('ethtool --version')).toContain('ethtool version');
});

it('has the shared folder, read-only, the module of one’s own, and the kernel’s', async () => {
  expect(await type('cat /share/greeting; touch /share/x')).toMatch(
    /hello from outside[\s\S]*Read-only file system/,
  );
  expect(await type(`grep -c ^${MODULE} /proc/modules`)).toContain('\n1\n');
  expect(await type('modprobe igbvf && grep -c ^igbvf /proc/modules')).toContain('\n1\n');
});

it('gives a PF that no driver of one’s own takes to no other', async () => {
  const own = [
    `--device=${join(ROOT, 'examples/my-card/my-card.ts')}`,
    `--module=${join(folder, 'my_card.ko')}`,
  ];
  const refused = spawn(process.execPath, [LAB, 'guest', ...own], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const end = once(refused, 'exit');
  let greeting = '';
  refused.stdout.setEncoding('utf8').on('data', (text: string) => {
    greeting += text;
  });
  await expect.poll(() => greeting, BY_A_GUEST).toContain(PROMPT);
  refused.stdin.write('exit\n');
  expect(await end).toEqual([0, null]);
  expect(greeting).toContain(
    'The PF, my-card.ts, is 0000:01:00.0; its driver: none, dmesg says why.',
  );
});

it.each([
  ['as it begins', 'lab-guest-'],
  ['as the guest boots', 'vfio-user-sriov-'],
])('leaves nothing where a signal ends it %s', async (_, begun) => {
  const own = await mkdtemp(join(tmpdir(), 'guest-shell-cut-short-'));
  const env = { ...process.env, TMPDIR: own };
  const other = spawn(process.execPath, [LAB, 'guest'], {
    stdio: ['pipe', 'ignore', 'ignore'],
    env,
  });
  await expect
    .poll(() => readdir(own), BY_A_PROGRAM)
    .toContainEqual(expect.stringContaining(begun));
  const end = once(other, 'exit');
  other.kill('SIGTERM');
  await end;
  expect(await readdir(own)).toEqual([]);
  await rm(own, { recursive: true });
});

it('ends with the shell', async () => {
  guest.stdin!.write('exit\n');
  expect(await ended).toEqual([0, null]);
});
