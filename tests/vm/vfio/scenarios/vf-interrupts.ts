// Scenario: MSI-X of each VF reaches its eventfd, also after the VF's reset, and after disable and enable.
import { strict as assert } from 'node:assert';
import { createEventFd, drainEventFd } from '../../../../protocol/unix/eventfd.ts';
import { IrqIndex } from '../../../../protocol/vfio-user/commands.ts';
import { IrqSetFlag } from '../../../../protocol/vfio-user/messages.ts';
import { raiseVector, switchOn } from './igb.ts';
import { finished, functionOf, openPf, step, until } from './scenario.ts';

const flags = IrqSetFlag.dataEventFd | IrqSetFlag.actionTrigger;
const device = await step('the PF is opened', () => openPf());
const pf = functionOf(device, device.pf);
switchOn(pf);
// The PF's mode decides how its VFs signal.
raiseVector(pf, 0);
for (const round of [1, 2]) {
  const handles = await step(`2 VFs are made, round ${round}`, () => device.createVfs(2));
  for (const [index, handle] of handles.entries()) {
    const vf = functionOf(device, handle);
    const eventFds = [createEventFd(), createEventFd(), createEventFd()];
    switchOn(vf);
    vf.setIrqs({ index: IrqIndex.msix, start: 0, count: 3, flags, eventFds });
    for (const vector of [0, 2]) {
      await step(`VF ${index}: vector ${vector} reaches its eventfd`, async () => {
        raiseVector(vf, vector);
        await until('the interrupt', () => drainEventFd(eventFds[vector]!) > 0n);
      });
    }
    await step(`VF ${index}: interrupts go on after its reset`, async () => {
      await finished((done) => vf.reset(done));
      switchOn(vf);
      raiseVector(vf, 1);
      await until('the interrupt', () => drainEventFd(eventFds[1]!) > 0n);
    });
  }
  assert.deepEqual(await device.releaseVfs(), []);
  await device.destroyVfs();
}
await step('everything is given back', () => device.close());
