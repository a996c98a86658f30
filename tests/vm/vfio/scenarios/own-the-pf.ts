// Scenario: owning the PF. Config space, BAR, MSI-X through an eventfd, vectors beyond those enabled at first, reset.
import { strict as assert } from 'node:assert';
import { createEventFd, drainEventFd } from '../../../../protocol/unix/eventfd.ts';
import { IrqIndex } from '../../../../protocol/vfio-user/commands.ts';
import { IrqSetFlag } from '../../../../protocol/vfio-user/messages.ts';
import { raiseVector, readStatus, switchOn } from './igb.ts';
import { finished, functionOf, openPf, readPf, step, until } from './scenario.ts';

const device = await step('the PF is opened', () => openPf());
const { description } = device;
const pf = functionOf(device, device.pf);
const trigger = IrqSetFlag.dataEventFd | IrqSetFlag.actionTrigger;

await step('the description is that of an igb', () => {
  const ids = new DataView(description.pf.config.buffer).getUint32(0, true);
  assert.equal(ids, 0x10c9_8086);
  assert.equal(description.pf.config.length, 4096);
  assert.equal(description.vfDeviceId, 0x10ca);
  assert.ok(description.totalVfs >= 7);
  assert.deepEqual(
    description.vfBars.map(({ index, size, kind }) => [index, size, kind]),
    [
      [0, 0x4000, 'memory64'],
      [3, 0x4000, 'memory64'],
    ],
  );
  assert.deepEqual(
    description.vf.bars.map(({ index, size }) => [index, size]),
    description.vfBars.map(({ index, size }) => [index, size]),
  );
  assert.deepEqual(description.pf.regions[3]!.mappable, [{ offset: 0x1000, size: 0x3000 }]);
});

await step('config space can be written and read back', () => {
  switchOn(pf);
  assert.equal(pf.readConfig(0x04, 2) & 0x06, 0x06);
  assert.equal(pf.readConfig(0x00, 4), 0x10c9_8086);
});

await step('a BAR answers', () => {
  const status = readStatus(pf);
  assert.notEqual(status, 0);
  assert.notEqual(status, 0xffff_ffff);
});

const eventFds = [createEventFd(), createEventFd(), createEventFd()];
await step('MSI-X is enabled with a deaf vector, as QEMU does it', () => {
  pf.setIrqs({ index: IrqIndex.msix, start: 0, count: 1, flags: trigger });
  pf.setIrqs({
    index: IrqIndex.msix,
    start: 0,
    count: 2,
    flags: trigger,
    eventFds: eventFds.slice(0, 2),
  });
});

for (const vector of [0, 1]) {
  await step(`vector ${vector} reaches its eventfd`, async () => {
    raiseVector(pf, vector);
    await until('the interrupt', () => drainEventFd(eventFds[vector]!) > 0n);
    assert.equal(drainEventFd(eventFds[1 - vector]!), 0n);
  });
}

await step('a vector beyond those enabled at first works', async () => {
  pf.setIrqs({
    index: IrqIndex.msix,
    start: 2,
    count: 1,
    flags: trigger,
    eventFds: [eventFds[2]!],
  });
  raiseVector(pf, 2);
  await until('the interrupt', () => drainEventFd(eventFds[2]!) > 0n);
});

await step('an interrupt index that is not enabled can be disabled', () => {
  const flags = IrqSetFlag.dataNone | IrqSetFlag.actionTrigger;
  pf.setIrqs({ index: IrqIndex.intx, start: 0, count: 0, flags });
  pf.setIrqs({ index: IrqIndex.msix, start: 0, count: 0, flags });
});

await step('INTx is bound, masked and unmasked', () => {
  const [fd] = eventFds;
  const one = { index: IrqIndex.intx, start: 0, count: 1 };
  pf.setIrqs({ ...one, flags: trigger, eventFds: [fd!] });
  pf.setIrqs({ ...one, flags: IrqSetFlag.dataNone | IrqSetFlag.actionMask });
  pf.setIrqs({ ...one, flags: IrqSetFlag.dataNone | IrqSetFlag.actionUnmask });
  const flags = IrqSetFlag.dataNone | IrqSetFlag.actionTrigger;
  pf.setIrqs({ index: IrqIndex.intx, start: 0, count: 0, flags });
});

await step('wrong interrupts are refused', () => {
  assert.throws(
    () =>
      pf.setIrqs({
        index: IrqIndex.msix,
        start: 0,
        count: 99,
        flags: trigger,
        eventFds: [],
      }),
    { name: 'HostError', errno: 22 },
  );
});

await step('the PF is reset', async () => {
  pf.writeConfig(0x04, 2, 0x06);
  await finished((done) => pf.reset(done));
  switchOn(pf);
  assert.notEqual(readStatus(pf), 0xffff_ffff);
});

await step('everything is given back', async () => {
  await device.close();
  assert.equal(readPf('sriov_numvfs'), '0');
});
