// Measures: making `argv[2]` VFs, against the floor that the kernel sets (one write of sriov_numvfs, then all opens at once).
import { strict as assert } from 'node:assert';
import { randomUUID } from 'node:crypto';
import { readlinkSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { encodeProfile } from '../../../../backend/host/device-profile.ts';
import { linuxCalls } from '../../../../backend/host/kernel-calls.ts';
import { VfioContainer } from '../../../../backend/host/vfio-container.ts';
import { openDevice, openGroup } from '../../../../backend/host/vfio-group.ts';
import { openPf, PF, PF_FOLDER, step } from './scenario.ts';

const COUNT = Number(process.argv[2] ?? 4);
/** Measured in turns, so that both see the same noise. */
const TURNS = 3;
const ROUNDS = 3;
const PROFILE = '/tmp/enable-speed.json';
const folders = { sysfs: '/sys', dev: '/dev', proc: '/proc', state: '/run/vfio-user-sriov' };
const calls = linuxCalls();

function groupOf(folder: string): string {
  return basename(readlinkSync(`${folder}/iommu_group`));
}

async function floor(): Promise<number[]> {
  const token = randomUUID();
  const container = await VfioContainer.open(calls, '/dev', undefined);
  const pfGroup = await openGroup(calls, folders, groupOf(PF_FOLDER));
  await container.attach(pfGroup, PF);
  const pf = await openDevice(calls, pfGroup, PF, token);
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    await writeFile(`${PF_FOLDER}/sriov_numvfs`, String(COUNT));
    const fds = await Promise.all(
      Array.from({ length: COUNT }, async (_, index) => {
        const folder = `${PF_FOLDER}/virtfn${index}`;
        const group = await openGroup(calls, folders, groupOf(folder));
        await container.attach(group, folder);
        return [await openDevice(calls, group, basename(readlinkSync(folder)), token), group];
      }),
    );
    times.push(performance.now() - start);
    for (const pair of fds) for (const fd of pair) await calls.close(fd);
    await writeFile(`${PF_FOLDER}/sriov_numvfs`, '0');
  }
  await calls.close(pf);
  await calls.close(pfGroup);
  await container.close();
  return times;
}

async function ours(): Promise<number[]> {
  const device = await openPf({ profile: PROFILE });
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    await device.createVfs(COUNT);
    times.push(performance.now() - start);
    assert.deepEqual(await device.releaseVfs(), []);
    await device.destroyVfs();
  }
  await device.close();
  return times;
}

const median = (times: number[]) => times.sort((a, b) => a - b)[times.length >> 1]!;
const first = await step('the look of a VF is noted', () => openPf());
await writeFile(PROFILE, encodeProfile(first.description));
await first.close();
const floorTimes: number[] = [];
const ourTimes: number[] = [];
for (let turn = 1; turn <= TURNS; turn++) {
  floorTimes.push(...(await step(`the floor is measured, turn ${turn}`, floor)));
  ourTimes.push(...(await step(`our time is measured, turn ${turn}`, ours)));
}
const [floorTime, ourTime] = [median(floorTimes), median(ourTimes)];
const ratio = ourTime / floorTime;
console.log(
  `${COUNT} VFs: floor ${floorTime.toFixed(0)} ms, ours ${ourTime.toFixed(0)} ms, ratio ${ratio.toFixed(2)}`,
);
