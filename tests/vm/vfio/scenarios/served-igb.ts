// Scenario: `serve --pf` and the reference VMM. What a guest sees of PF and VFs, and what goes on working after resets.
import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PciFunction } from '../../../../vmm-glue/reference-vmm/pci-function.ts';
import { ReferenceVmm } from '../../../../vmm-glue/reference-vmm/reference-vmm.ts';
import { BackendProcess } from './backend-process.ts';
import { isAlive } from './igb.ts';
import { raise, statusByMapping, statusByMessage } from './igb-guest.ts';
import { readPf, step } from './scenario.ts';

const socket = '/tmp/served.sock';
const backend = await step('the backend starts', () => BackendProcess.start(socket));
const vmm = await step('a VM boots on it', () => ReferenceVmm.start({ pf: socket }));
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
  for (const id of pf.capabilities.extended.keys()) assert.ok(allowed.has(id), `0x${id}`);
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
await step('no access to a mapped BAR of the PF went through the backend', async () => {
  const before = (await backend.status()) as never as { clients: { messages: number }[] };
  for (let i = 0; i < 1000; i++) statusByMapping(pf);
  const after = (await backend.status()) as never as { clients: { messages: number }[] };
  assert.equal(after.clients[0]!.messages, before.clients[0]!.messages);
});
await step('VM and backend end', async () => {
  await vmm.close();
  assert.equal(await backend.end(), 0);
});
