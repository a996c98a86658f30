// Scenario: `serve --pf --container=per-function` and the reference VMM. PF and VFs do DMA to the VM's memory, and one
// to memory of its own. Counters show that neither DMA nor interrupts nor mapped BARs pass through the backend.
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PciFunction } from '../../../../vmm-glue/reference-vmm/pci-function.ts';
import { ReferenceVmm } from '../../../../vmm-glue/reference-vmm/reference-vmm.ts';
import { HugeMemory } from '../../../fakes/huge-memory.ts';
import { BackendProcess } from './backend-process.ts';
import { bringUp, NvmeDriver, namesOf, shareResources } from './nvme.ts';
import { guestLink } from './nvme-guest.ts';
import { readPf, step } from './scenario.ts';

/** Where QEMU's RAM goes on behind the VGA window and the ROMs; in the middle of a huge page. */
const ADDRESS = 0x10_0000;
const LOW_END = 0xa_0000;
const COMMANDS = 200;
/** Memory Space Enable, Bus Master Enable and Interrupt Disable, of the Command register. */
const MEMORY_AND_BUS_MASTER = 0x0406;
const SOCKET = '/tmp/served.sock';
const backend = await step('the backend starts', () =>
  BackendProcess.start(SOCKET, ['--container=per-function']),
);
const vmm = await step('a VM boots on it', () => ReferenceVmm.start({ pf: SOCKET }));

/** Drivers share memory, each at a place of its own. */
function driverOf(fn: PciFunction, place: number, fd = vmm.memory.fd): NvmeDriver {
  const at = ADDRESS + place * 0x1_0000;
  return new NvmeDriver(guestLink(fn), { fd, fileOffset: at, address: at });
}

const pf = driverOf(vmm.pf, 0);
await step('the PF does DMA to the memory of the VM', async () => {
  await pf.start();
  assert.equal(namesOf(await pf.identify()).serial, 'LAB-1');
  await shareResources(pf);
});
const vfs = await step('the guest enables 2 VFs', () => vmm.enableVfs(2));
const drivers = vfs.map((vf, index) => driverOf(vf, index + 1));
for (const [index, driver] of drivers.entries()) {
  await bringUp(pf, index);
  await step(`VF ${index} does DMA to the memory of the VM`, async () => {
    await driver.start();
    assert.equal(namesOf(await driver.identify()).model, 'QEMU NVMe Ctrl');
  });
}

/** Bytes that the backend has read and written so far, in any of its threads. */
function bytesMoved(): number {
  const io = readFileSync(`/proc/${backend.pid}/io`, 'utf8');
  const count = (name: string) => Number(new RegExp(`${name}: (\\d+)`).exec(io)?.[1]);
  return count('rchar') + count('wchar');
}
await step(`${COMMANDS} commands of PF and VF pass the backend by`, async () => {
  const before = await backend.status();
  const bytesBefore = bytesMoved();
  for (let i = 0; i < COMMANDS / 2; i++) {
    await pf.identify();
    await drivers[0]!.identify();
  }
  const moved = bytesMoved() - bytesBefore;
  console.log(`${COMMANDS} x 4096 bytes of DMA: the backend read and wrote ${moved} bytes`);
  // An eventfd that passed through would cost 16 bytes a command, a register 4, the DMA itself 4096.
  assert.ok(moved < 4 * COMMANDS, `${moved} bytes`);
  const after = await backend.status();
  const counts = ({ pf: { messages, interrupts }, vfs: all }: typeof after) => [
    [messages, interrupts],
    ...all.map((vf) => [vf.messages, vf.interrupts]),
  ];
  assert.deepEqual(counts(after), counts(before));
  assert.equal(after.pf.interrupts, 0, 'no interrupt was raised by the backend');
  assert.ok(pf.interrupts > COMMANDS / 2, 'each command ended with an interrupt in the VMM');
});

await step('VF 1 gets memory of its own, huge pages, at the addresses of the others', async () => {
  const [, vf] = vfs;
  const own = HugeMemory.open();
  assert.ok(own, 'the host has huge pages');
  const { fd } = own;
  await vf!.client.unmapDma(0n, BigInt(vmm.memory.length));
  await vf!.client.mapDma({ address: 0n, size: BigInt(LOW_END), fd });
  const high = { address: BigInt(ADDRESS), fileOffset: BigInt(ADDRESS) };
  await vf!.client.mapDma({ ...high, size: BigInt(own.bytes.length - ADDRESS), fd });
  const shared = Buffer.from(vmm.memory.bytes);
  const driver = driverOf(vf!, 2, own.fd);
  await driver.restart();
  vf!.interrupts[0]!.drain();
  assert.equal(namesOf(await driver.identify()).model, 'QEMU NVMe Ctrl');
  assert.ok(shared.equals(vmm.memory.bytes), 'the memory of the others is as it was');
});
await step('PF and VF 0 go on in the memory of the VM', async () => {
  await pf.identify();
  await drivers[0]!.identify();
});

/** Waits until Command and Status are not all-ones any more. */
async function answers(fn: PciFunction): Promise<void> {
  const deadline = Date.now() + 5_000;
  while ((await fn.config.read(4, 4)) === 0xffff_ffff) {
    assert.ok(Date.now() < deadline, `${fn.name} does not answer`);
    await sleep(10);
  }
}

/** A function level reset takes some 100 ms: after half a second it has not ended. */
async function expectHang(fn: PciFunction): Promise<void> {
  let looks = 5;
  const wait = async (): Promise<void> => {
    assert.ok(looks-- > 0, 'the guest has looked five times');
    await sleep(100);
  };
  await assert.rejects(fn.functionLevelReset(wait), /has looked five times/);
  assert.equal(await fn.config.read(0, 4), 0xffff_ffff);
}

await step(
  'a function level reset of a VF hangs until the fault is cleared, and only its own',
  async () => {
    const [first, second] = vfs;
    await backend.whileFaulty('flr:hang@function=vf1', async () => {
      await expectHang(second!);
      await first!.functionLevelReset(sleep);
    });
    await answers(second!);
  },
);
await step('the guest disables the VFs', async () => {
  await vmm.disableVfs();
  await backend.reaches('disabled');
  assert.equal(readPf('sriov_numvfs'), '0');
});

await step('an enable that is to fail fails, and the card has made no VF', () =>
  backend.whileFaulty('vf-enable:fail', async () => {
    await assert.rejects(vmm.enableVfs(1), /EIO in Linux/);
    assert.equal(readPf('sriov_numvfs'), '0');
  }),
);
await step('an enable that is to take longer does, and the VFs are there then', () =>
  backend.whileFaulty('vf-enable:delay=1s', async () => {
    const began = performance.now();
    await vmm.enableVfs(1);
    assert.ok(performance.now() - began >= 995);
    assert.equal(readPf('sriov_numvfs'), '1');
    await vmm.disableVfs();
    await backend.reaches('disabled');
  }),
);
await step(
  'a VF of the card that is to be absent reads all-ones, and Linux gives the other up',
  () =>
    backend.whileFaulty('vf=1:absent', async () => {
      await assert.rejects(vmm.enableVfs(2), /VF 1: it reads all ones .* \(EIO in Linux\)/);
      await backend.reaches('disabled');
      assert.equal(readPf('sriov_numvfs'), '0');
    }),
);
await step('config space of the card reads all-ones once', () =>
  backend.whileFaulty('config-read:all-ones@times=1,function=pf', async () => {
    const ids = () => vmm.pf.config.read(0, 4);
    assert.deepEqual([await ids(), await ids()], [0xffff_ffff, 0x0010_1b36]);
  }),
);
await step('an interrupt of the card is lost, and one that it did not raise comes', async () => {
  const before = pf.interrupts;
  let identified: Promise<Uint8Array> | undefined;
  await backend.whileFaulty('msix:lost@vector=0,function=pf', async () => {
    identified = pf.identify();
    await sleep(500);
    assert.equal(pf.interrupts, before, 'the driver still waits');
  });
  await backend.whileFaulty('msix:spurious=100ms@vector=0,function=pf', async () => {
    await identified;
  });
});
await step('a function level reset of the card takes its time', () =>
  backend.whileFaulty('flr:delay=700ms@function=pf', async () => {
    const began = performance.now();
    await vmm.pf.functionLevelReset(sleep);
    assert.ok(performance.now() - began >= 695);
  }),
);
await step('one that hangs is over when the fault is cleared, and the card goes on', async () => {
  await backend.whileFaulty('flr:hang@function=pf', () => expectHang(vmm.pf));
  await answers(vmm.pf);
  await vmm.pf.config.write(4, 2, MEMORY_AND_BUS_MASTER);
  await pf.restart();
  assert.equal(namesOf(await pf.identify()).serial, 'LAB-1');
});
await step('VM and backend end', async () => {
  await vmm.close();
  assert.equal(await backend.end(), 0);
});
