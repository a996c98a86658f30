// Measures: enabling `argv[2]` VFs, against the floor that the kernel sets (one write of sriov_numvfs, then all opens at
// once). Both from the call that makes them, and as a guest sees it: from before its writes to NumVFs and VF Enable until
// its VMM may let it run on.
import { strict as assert } from 'node:assert';
import { randomUUID } from 'node:crypto';
import { readlinkSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { encodeProfile } from '../../../../backend/devices/device-profile.ts';
import { linuxContext } from '../../../../backend/devices/vfio/linux-context.ts';
import { openDevice, openGroup } from '../../../../backend/devices/vfio/vfio/group.ts';
import { SILENT } from '../../../../protocol/log.ts';
import { processClock } from '../../../../protocol/unix/process-clock.ts';
import { VfioUserClient } from '../../../../vmm-glue/client/client.ts';
import { median } from '../../../bench/figure.ts';
import { AS_VMM, agree, SriovRegisters, takeEvents } from '../../../protocol/hotplug-guest.ts';
import { BackendProcess } from './backend-process.ts';
import { emptyContainer, openPf, PF, PF_FOLDER, step } from './scenario.ts';

const COUNT = Number(process.argv[2] ?? 4);
/** Measured in turns, so that both see the same noise. */
const TURNS = 2;
const ROUNDS = 5;
const PROFILE = '/tmp/enable-speed.json';
const context = linuxContext(SILENT, processClock);
const { calls } = context;

function groupOf(folder: string): string {
  return basename(readlinkSync(`${folder}/iommu_group`));
}

async function floor(): Promise<number[]> {
  const token = randomUUID();
  const container = await emptyContainer(calls);
  const pfGroup = await openGroup(context, { group: groupOf(PF_FOLDER), bdf: PF });
  await container.attach(pfGroup, PF);
  const pf = await openDevice(context, pfGroup, PF, token);
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    await writeFile(`${PF_FOLDER}/sriov_numvfs`, String(COUNT));
    const fds = await Promise.all(
      Array.from({ length: COUNT }, async (_, index) => {
        const folder = `${PF_FOLDER}/virtfn${index}`;
        const bdf = basename(readlinkSync(folder));
        const group = await openGroup(context, { group: groupOf(folder), bdf });
        await container.attach(group, folder);
        return [await openDevice(context, group, bdf, token), group];
      }),
    );
    times.push(performance.now() - start);
    for (const pair of fds) {
      for (const fd of pair) {
        await calls.close(fd);
      }
    }
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

/** With a VMM that answers at once: what it does with its VFs is its own time. */
async function guestVisible(): Promise<number[]> {
  const socket = '/tmp/enable-speed.sock';
  const backend = await BackendProcess.start(socket, [`--profile=${PROFILE}`]);
  const client = await VfioUserClient.connect(socket, { capabilities: AS_VMM });
  await client.reset();
  const registers = await SriovRegisters.of(client);
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    await registers.enable(COUNT);
    for await (const event of client.hotplugEvents()) {
      agree(event);
      if (event.kind !== 'enableEnd') {
        continue;
      }
      assert.equal(event.message.outcome, 'enabled');
      break;
    }
    times.push(performance.now() - start);
    await registers.disable();
    for (const event of await takeEvents(client, COUNT)) {
      agree(event);
    }
    await backend.reaches('disabled');
  }
  client.close();
  assert.equal(await backend.end(), 0);
  return times;
}

const first = await step('the look of a VF is noted', () => openPf());
await writeFile(PROFILE, encodeProfile(first.description));
await first.close();
const floorTimes: number[] = [];
const ourTimes: number[] = [];
const guestTimes: number[] = [];
for (let turn = 1; turn <= TURNS; turn++) {
  floorTimes.push(...(await step(`the floor is measured, turn ${turn}`, floor)));
  ourTimes.push(...(await step(`our time is measured, turn ${turn}`, ours)));
  guestTimes.push(...(await step(`a guest's time is measured, turn ${turn}`, guestVisible)));
}
const floorTime = median(floorTimes);
for (const [name, times] of [
  ['made', ourTimes],
  ['enabled by a guest', guestTimes],
] as const) {
  const time = median(times);
  const ratio = (time / floorTime).toFixed(2);
  console.log(
    `${COUNT} VFs ${name}: floor ${floorTime.toFixed(0)} ms, ours ${time.toFixed(0)} ms, ratio ${ratio}`,
  );
}
