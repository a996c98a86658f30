// Scenario: `serve --pf` and the reference VMM. What a guest sees of PF and VFs, and what goes on working after resets.
import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { signalEventFd } from '../../../../protocol/unix/eventfd.ts';
import { IrqIndex } from '../../../../protocol/vfio-user/commands.ts';
import { IrqSetFlag } from '../../../../protocol/vfio-user/messages.ts';
import { Interrupt } from '../../../../vmm-glue/client/interrupts.ts';
import type { PciFunction } from '../../../../vmm-glue/reference-vmm/pci-function.ts';
import { ReferenceVmm } from '../../../../vmm-glue/reference-vmm/reference-vmm.ts';
import { BackendProcess } from './backend-process.ts';
import { isAlive } from './igb.ts';
import { quietIntx, raise, raiseIntx, statusByMapping, statusByMessage } from './igb-guest.ts';
import { readPf, step } from './scenario.ts';

const SOCKET = '/tmp/served.sock';
const backend = await step('the backend starts', () =>
  BackendProcess.start(SOCKET, ['--trace=/tmp/served.trace', '--trace-size=8M']),
);
const vmm = await step('a VM boots on it', () => ReferenceVmm.start({ pf: SOCKET }));
const { pf } = vmm;

async function interruptsComeOn(fn: PciFunction, vector: number): Promise<void> {
  fn.interrupts[vector]!.drain();
  await raise(fn, vector);
  await fn.interrupts[vector]!.next();
}

await step('the guest sees the IDs and the SR-IOV capability of the card', () => {
  assert.equal(pf.vendorId, 0x8086);
  assert.equal(pf.deviceId, 0x10c9);
  assert.equal(vmm.sriov.totalVfs, 8);
  assert.equal(vmm.sriov.vfDeviceId, 0x10ca);
});
await step('open issue 3: all six page sizes are offered, whatever the host uses', async () => {
  const base = pf.capabilities.extended.get(0x10)!;
  assert.equal(await pf.config.read(base + 0x1c, 4), 0x553);
});
await step('open issue 4: no capability of the host leaks, and no address', async () => {
  const allowed = new Set([0x01, 0x03, 0x0b, 0x0e, 0x10, 0x23]);
  for (const id of pf.capabilities.extended.keys()) {
    assert.ok(allowed.has(id), `0x${id}`);
  }
  const base = pf.capabilities.extended.get(0x10)!;
  const guestAddress = vmm.sriov.placedBars[0]!.address;
  const low = await pf.config.read(base + 0x24, 4);
  assert.equal(BigInt(low & ~0xf) & 0xffff_ffffn, guestAddress & 0xffff_fff0n);
});
await step('BAR 0 answers by messages and through its mapping alike', async () => {
  const status = await statusByMessage(pf);
  assert.notEqual(status, 0xffff_ffff);
  assert.equal(statusByMapping(pf), status);
});
const INTX = { index: IrqIndex.intx, start: 0, count: 1 };
const intx = new Interrupt();
const unmask = () =>
  pf.client.setIrqs({ ...INTX, flags: IrqSetFlag.dataNone | IrqSetFlag.actionUnmask });
async function expectSilence(): Promise<void> {
  await sleep(300);
  assert.equal(intx.drain(), 0n);
}
await step('INTx reaches the VMM once, and the kernel has masked it then', async () => {
  await pf.client.bindInterrupts(IrqIndex.intx, 0, [intx]);
  await quietIntx(pf);
  await raiseIntx(pf);
  assert.equal(await intx.next(), 1n);
  await quietIntx(pf);
  await raiseIntx(pf);
  await expectSilence();
});
await step('unmasked while its line is asserted, INTx comes once more', async () => {
  await unmask();
  assert.equal(await intx.next(), 1n);
  await expectSilence();
});
await step('unmasked while its line is quiet, INTx comes with the next cause', async () => {
  await quietIntx(pf);
  await unmask();
  await expectSilence();
  await raiseIntx(pf);
  assert.equal(await intx.next(), 1n);
});
await step('INTx that the VMM masks waits until it is unmasked', async () => {
  await quietIntx(pf);
  await unmask();
  await pf.client.setIrqs({ ...INTX, flags: IrqSetFlag.dataNone | IrqSetFlag.actionMask });
  await raiseIntx(pf);
  await expectSilence();
  await unmask();
  assert.equal(await intx.next(), 1n);
});
await step('INTx is unmasked by an eventfd of the VMM, in the kernel', async () => {
  const resample = new Interrupt();
  const flags = IrqSetFlag.dataEventFd | IrqSetFlag.actionUnmask;
  await pf.client.setIrqs({ ...INTX, flags }, undefined, [resample.fd]);
  await expectSilence();
  signalEventFd(resample.fd);
  assert.equal(await intx.next(), 1n);
  resample.close();
});
await step('INTx is given back', async () => {
  await quietIntx(pf);
  await pf.client.disableInterrupts(IrqIndex.intx);
  intx.close();
});
await step('interrupts of the PF reach the VMM', async () => {
  await pf.enableMsix();
  await interruptsComeOn(pf, 0);
  await interruptsComeOn(pf, 3);
});
const vfs = await step('open issue 1: the guest enables 3 VFs; no new_id was needed', () =>
  vmm.enableVfs(3),
);
assert.equal(readPf('sriov_numvfs'), '3');
await step('a VF looks as the standard wants it', async () => {
  for (const vf of vfs) {
    assert.equal(await vf.config.read(0, 4), 0xffff_ffff);
    assert.equal((await vf.config.read(4, 2)) & 2, 0);
    assert.equal(await vf.config.read(0x10, 4), 0);
  }
});
for (const [index, vf] of vfs.entries()) {
  await step(`VF ${index} answers and interrupts`, async () => {
    await vf.setBusMaster(true);
    assert.ok(isAlive(await statusByMessage(vf)));
    await vf.enableMsix();
    await interruptsComeOn(vf, 0);
    await interruptsComeOn(vf, 2);
  });
}
await step('interrupts of a VF go on after its reset; the VMM repeats nothing', async () => {
  await vfs[1]!.functionLevelReset(sleep);
  await vfs[1]!.setBusMaster(true);
  await interruptsComeOn(vfs[1]!, 1);
});
await step('interrupts of the PF go on after its reset; the VMM repeats nothing', async () => {
  await pf.functionLevelReset(sleep);
  await pf.config.write(4, 2, 0x0406);
  await interruptsComeOn(pf, 0);
});
await step('the reset of the PF has taken its VFs', async () => {
  await backend.reaches('disabled');
  assert.equal(readPf('sriov_numvfs'), '0');
});
await step('the guest restores the capability and enables VFs again', async () => {
  await vmm.sriov.restore();
  const again = await vmm.enableVfs(2);
  assert.ok(isAlive(await statusByMessage(again[0]!)));
});
await step('the guest disables VFs', async () => {
  await vmm.disableVfs();
  await backend.reaches('disabled');
  assert.equal(readPf('sriov_numvfs'), '0');
});
await step('no interrupt and no access to a mapped BAR went through the backend', async () => {
  const before = await backend.status();
  for (let i = 0; i < 1000; i++) {
    statusByMapping(pf);
  }
  const after = await backend.status();
  assert.equal(after.pf.messages, before.pf.messages);
  assert.equal(after.pf.interrupts, 0);
  assert.ok(pf.interrupts.some(({ total }) => total > 0n));
});
await step('VM and backend end', async () => {
  await vmm.close();
  assert.equal(await backend.end(), 0);
});
