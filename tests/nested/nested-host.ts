// The virtual host in which a story runs: boots it with the story's cards, runs the story, passes on what it tells.

import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GuestVm } from '../lab/guest.ts';
import { guestToolFiles } from '../lab/guest-tools.ts';
import { hostVm } from '../lab/host-vm.ts';
import { writeInitramfs } from '../lab/initramfs.ts';
import { lab } from '../lab/lab.ts';
import { LabError } from '../lab/lab-error.ts';
import { projectFolder } from '../lab/rootfs.ts';
import { runProgram } from '../lab/run-program.ts';

export interface StoryRun {
  readonly name: string;
  readonly args: readonly string[];
  readonly devices?: readonly string[];
  readonly limitMilliseconds: number;
}

/** An igb whose network has an echo service: what is sent to 10.0.2.100, port 7, comes back. */
const IGB: readonly string[] = [
  ...['-netdev', 'user,id=igbnet,restrict=on,guestfwd=tcp:10.0.2.100:7-cmd:cat'],
  ...['-device', 'pcie-root-port,id=rp1,chassis=1,slot=1,addr=4'],
  ...['-device', 'igb,bus=rp1,netdev=igbnet'],
];
/** Builds the C program of this folder. */
async function buildRegisterReader(folder: string): Promise<string> {
  const output = join(folder, 'register-read');
  const source = join(await projectFolder(), 'tests/nested/register-read.c');
  const result = await runProgram('cc', ['-O2', '-Wall', '-static', '-o', output, source]);
  if (result.status !== 0)
    throw new LabError(
      source,
      result.stderr,
      'install a C compiler: apt-get install gcc libc6-dev',
    );
  return output;
}

const FOLLOW_MILLISECONDS = 500;

/** Runs one story; `onText` gets what it tells as it goes. Rejects when it does not end well, or not in time. */
export async function runStory(run: StoryRun, onText: (text: string) => void): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'nested-'));
  const log = join(folder, 'story');
  const paths = await lab();
  await writeInitramfs({
    file: join(folder, 'nested', 'initrd'),
    busybox: paths.busybox,
    modulesFolder: paths.modules,
    loadableModules: ['igb', 'igbvf', 'nvme', 'pktgen'],
    files: [
      ...(await guestToolFiles(['setpci', 'nvme'])),
      { path: '/bin/register-read', source: await buildRegisterReader(folder) },
    ],
  });
  const vm = await GuestVm.start(
    await hostVm({
      lab: paths,
      folder,
      memoryMegabytes: 1024,
      modules: ['kvm-amd', 'vfio-pci', 'vfio_iommu_type1'],
      loadableModules: ['igb', 'igbvf', 'nvme'],
      shares: [
        { path: '/story', source: folder, writable: true },
        { path: '/nested', source: join(folder, 'nested') },
      ],
      devices: run.devices ?? IGB,
    }),
  );
  let told = 0;
  const follow = (): void => {
    if (!existsSync(log)) return;
    const text = readFileSync(log, 'utf8');
    onText(text.slice(told));
    told = text.length;
  };
  const timer = setInterval(follow, FOLLOW_MILLISECONDS);
  try {
    await vm.waitForBoot();
    const program = `/project/dist/tests/nested/inside/main.js ${[run.name, ...run.args].join(' ')}`;
    await vm.check(
      `UV_THREADPOOL_SIZE=16 node --enable-source-maps ${program} > /story/story 2>&1`,
      {
        timeoutMs: run.limitMilliseconds,
      },
    );
    follow();
    await vm.powerOff();
  } finally {
    clearInterval(timer);
    follow();
    await vm.kill();
    await rm(folder, { recursive: true, force: true });
  }
}
