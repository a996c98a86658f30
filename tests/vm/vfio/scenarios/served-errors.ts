// Scenario: PCIe errors that the kernel's vfio-pci handlers report reach the VMM, of the PF and of a VF. The errors come
// from outside, by whoever runs this: one when it says READY, one when it says AGAIN. Between them one is a fault on demand.
import { strict as assert } from 'node:assert';
import { IrqIndex } from '../../../../protocol/vfio-user/commands.ts';
import { Interrupt } from '../../../../vmm-glue/client/interrupts.ts';
import { ReferenceVmm } from '../../../../vmm-glue/reference-vmm/reference-vmm.ts';
import { BackendProcess } from './backend-process.ts';
import { isAlive } from './igb.ts';
import { statusByMessage } from './igb-guest.ts';
import { step } from './scenario.ts';

const LIMIT = 60_000;
const AER_CAPABILITY = 0x1;
/** Of Uncorrectable Error Status. */
const COMPLETION_TIMEOUT = 0x4000;

const SOCKET = '/tmp/served.sock';
const backend = await step('the backend starts', () => BackendProcess.start(SOCKET));
const vmm = await step('a VM boots on it', () => ReferenceVmm.start({ pf: SOCKET }));
const { pf } = vmm;
const vf = (await step('the guest enables a VF', () => vmm.enableVfs(1)))[0]!;
const errors = { pf: new Interrupt(), vf: new Interrupt() };
await step('the VMM binds eventfds for errors of PF and VF', async () => {
  await pf.client.bindInterrupts(IrqIndex.err, 0, [errors.pf]);
  await vf.client.bindInterrupts(IrqIndex.err, 0, [errors.vf]);
});
console.log('READY');
await step('an error reaches the eventfds of PF and VF, once', async () => {
  assert.equal(await errors.pf.next(LIMIT), 1n);
  assert.equal(await errors.vf.next(LIMIT), 1n);
});
await step('PF and VF go on working', async () => {
  assert.ok(isAlive(await statusByMessage(pf)));
  assert.ok(isAlive(await statusByMessage(vf)));
});
await step(
  'an error that is asked for is laid over the card’s registers, until it is cleared there',
  () =>
    backend.whileFaulty('aer:nonfatal@function=pf', async () => {
      const uncorrectable = pf.capabilities.extended.get(AER_CAPABILITY)! + 4;
      assert.equal(await pf.config.read(uncorrectable, 4), COMPLETION_TIMEOUT);
      assert.equal(await errors.pf.next(LIMIT), 1n);
      await pf.config.write(uncorrectable, 4, COMPLETION_TIMEOUT);
      assert.equal(await pf.config.read(uncorrectable, 4), 0);
    }),
);
await step('the VMM takes the eventfd of the PF back', () =>
  pf.client.disableInterrupts(IrqIndex.err),
);
console.log('AGAIN');
await step('the next error reaches the VF alone', async () => {
  // The kernel goes through the bus from the PF on: when it has told the VF, it is done with the PF.
  assert.equal(await errors.vf.next(LIMIT), 1n);
  assert.equal(errors.pf.drain(), 0n);
});
await step('VM and backend end', async () => {
  for (const interrupt of Object.values(errors)) {
    interrupt.close();
  }
  await vmm.close();
  assert.equal(await backend.end(), 0);
});
