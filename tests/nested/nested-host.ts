// The virtual host in which a story runs: boots it with the story's cards, runs the story, passes on what it tells.
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GuestVm } from '../lab/guest.ts';
import { guestProgram } from '../lab/guest-program.ts';
import { guestToolFiles } from '../lab/guest-tools.ts';
import { hostVm } from '../lab/host-vm.ts';
import { writeInitramfs } from '../lab/initramfs.ts';
import { type Lab, lab } from '../lab/lab.ts';
import { registerReader } from '../lab/register-reader.ts';
import { GUEST_FUNCTIONS, RANDOM_WRITES, randomWrites } from './guest-functions.ts';
import { EMULATOR_FAULT_STATUS, EmulatorFault, randomNumbers } from './inside/story.ts';
import type { Story, VfMemory } from './stories.ts';

const FOLLOW_MILLISECONDS = 500;
const DISK_BYTES = 64 * 1024 * 1024;
const RANDOM_WRITE_COUNT = 10_000;

/** How a story is told: `limit` in milliseconds. */
export interface Telling {
  readonly vfMemory: VfMemory;
  readonly count: number;
  readonly seed: number;
  readonly limit: number;
}

/**
 * Tells one story in a host of its own; `onText` gets it as it goes. Rejects when it does not end well, or in time: with
 * EmulatorFault where that is to blame.
 */
export async function tellStory(
  story: Story,
  { vfMemory, count, seed, limit }: Telling,
  onText: (text: string) => void,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'nested-'));
  try {
    const vm = await startHost(story, seed, folder);
    const told = follow(join(folder, 'story'), onText);
    try {
      await vm.waitForBoot();
      const program = '/project/dist/tests/nested/inside/main.js';
      const args = `${story.name} --count=${count} --seed=${seed}`;
      const node = `VF_MEMORY=${vfMemory} UV_THREADPOOL_SIZE=16 node`;
      const { status } = await vm.run(`${node} ${program} ${args} > /story/story 2>&1`, {
        timeoutMs: limit,
      });
      if (status === EMULATOR_FAULT_STATUS) {
        throw new EmulatorFault();
      }
      if (status !== 0) {
        throw new Error(`it ended with status ${status}`);
      }
      // A kernel with a task that nothing can end would not get there.
      await vm.powerOff();
    } finally {
      told();
      await vm.kill();
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function startHost(story: Story, seed: number, folder: string): Promise<GuestVm> {
  const paths = await lab();
  const isNvme = story.name === 'nvme';
  await writeFile(join(folder, 'nvme.img'), '');
  await truncate(join(folder, 'nvme.img'), DISK_BYTES);
  const nested = join(folder, 'nested');
  await writeInitramfs({
    file: join(nested, 'initrd'),
    busybox: paths.busybox,
    modulesFolder: paths.modules,
    loadableModules: isNvme ? ['nvme-core', 'nvme'] : ['igb', 'igbvf', 'pktgen'],
    files: [
      GUEST_FUNCTIONS,
      ...(await guestToolFiles(isNvme ? ['nvme'] : ['setpci'])),
      await registerReader(folder),
      { path: '/bin/pci-function', source: await guestProgram() },
      { path: RANDOM_WRITES, content: randomWrites(RANDOM_WRITE_COUNT, randomNumbers(seed)) },
    ],
  });
  return await GuestVm.start(await description(paths, story, folder, nested));
}

function description(paths: Lab, story: Story, folder: string, nested: string) {
  return hostVm({
    lab: paths,
    folder,
    memoryMegabytes: story.memoryMegabytes,
    modules: ['kvm-amd', 'vfio-pci', 'vfio_iommu_type1'],
    loadableModules: ['igb'],
    devices: story.cards.map((argument) => argument.replace('FOLDER', folder)),
    shares: [
      { path: '/story', source: folder, writable: true },
      { path: '/nested', source: nested },
    ],
  });
}

/** Passes on what is added to a file; the returned function ends that, after the last of it. */
function follow(path: string, onText: (text: string) => void): () => void {
  let passedOn = 0;
  const look = (): void => {
    if (!existsSync(path)) {
      return;
    }
    const text = readFileSync(path, 'utf8');
    if (text.length > passedOn) {
      onText(text.slice(passedOn));
    }
    passedOn = text.length;
  };
  const timer = setInterval(look, FOLLOW_MILLISECONDS);
  return () => {
    clearInterval(timer);
    look();
  };
}
