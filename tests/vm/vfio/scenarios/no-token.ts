// Scenario: a process without the token tries to open the VF `argv[2]`, which no one holds, and is refused.
import { strict as assert } from 'node:assert';
import { randomUUID } from 'node:crypto';
import { readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { openDevice, openGroup } from '../../../../backend/devices/vfio/vfio/group.ts';
import { linuxCalls } from '../../../../backend/devices/vfio/vfio/kernel-calls.ts';
import { emptyContainer, step } from './scenario.ts';

const bdf = process.argv[2]!;
const calls = linuxCalls();
const folders = { sysfs: '/sys', dev: '/dev', proc: '/proc', state: '/run/vfio-user-sriov' };
await step('a VF without the right token is refused', async () => {
  const group = basename(readlinkSync(`/sys/bus/pci/devices/${bdf}/iommu_group`));
  const container = await emptyContainer(calls);
  const fd = await openGroup(calls, folders, { group, bdf });
  await container.attach(fd, group);
  await assert.rejects(openDevice(calls, fd, bdf, randomUUID()), { errno: 13 });
});
