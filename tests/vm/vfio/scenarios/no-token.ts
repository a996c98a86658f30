// Scenario: a process without the token tries to open the VF `argv[2]`, which no one holds, and is refused.
import { strict as assert } from 'node:assert';
import { randomUUID } from 'node:crypto';
import { readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { linuxContext } from '../../../../backend/devices/vfio/linux-context.ts';
import { openDevice, openGroup } from '../../../../backend/devices/vfio/vfio/group.ts';
import { SILENT } from '../../../../protocol/log.ts';
import { processClock } from '../../../../protocol/unix/process-clock.ts';
import { emptyContainer, step } from './scenario.ts';

const bdf = process.argv[2]!;
const context = linuxContext(SILENT, processClock);
const { calls } = context;
await step('a VF without the right token is refused', async () => {
  const group = basename(readlinkSync(`/sys/bus/pci/devices/${bdf}/iommu_group`));
  const container = await emptyContainer(calls);
  const fd = await openGroup(context, { group, bdf });
  await container.attach(fd, group);
  await assert.rejects(openDevice(context, fd, bdf, randomUUID()), { errno: 13 });
});
