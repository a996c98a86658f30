// `npm run demo`: what a VM goes through with an SR-IOV device, with nothing but RAM behind it. The backend is the real
// process, started by its command line; the VM is the reference VMM. Ends with 0 only if all that it shows was true.

import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DeviceStatus } from '../protocol/hotplug/status.ts';
import { LoopbackDriver } from '../vmm-glue/reference-vmm/loopback-driver.ts';
import type { PciFunction } from '../vmm-glue/reference-vmm/pci-function.ts';
import { CapabilityId, ExtendedCapabilityId } from '../vmm-glue/reference-vmm/pci-offsets.ts';
import { ReferenceVmm } from '../vmm-glue/reference-vmm/reference-vmm.ts';
import { whenCutShort } from './clean-up.ts';
import { RunningCommand, run } from './command-line.ts';
import { Narrator } from './narrator.ts';
import { argumentsOf } from './program-arguments.ts';

const USAGE = `usage: npm run demo
Shows what a VM goes through with an SR-IOV device: the real backend with a device in RAM, driven by the reference VMM.
Needs no root, no hardware and no QEMU, and takes seconds. Ends with 0 only if all that it shows was true.
`;
const TOTAL_VFS = 8;
const VFS = 4;
const SOURCE = 0x10000;
const DESTINATION = 0x20000;
const LENGTH = 4096;
const GIVE_UP_MILLISECONDS = 5000;

argumentsOf(USAGE);
const tell = new Narrator();
const directory = mkdtempSync(join(tmpdir(), 'vfio-user-sriov-demo-'));
const socketPath = join(directory, 'pf.sock');
const tracePath = join(directory, 'pf.trace');
let backend: RunningCommand | undefined;
let vmm: ReferenceVmm | undefined;

async function status(): Promise<DeviceStatus> {
  return JSON.parse(await run('status', `--socket-path=${socketPath}`, '--json')) as DeviceStatus;
}

/** Asks until the backend is in a phase, and says whether it got there. */
async function reaches(phase: string): Promise<boolean> {
  const deadline = performance.now() + GIVE_UP_MILLISECONDS;
  while (performance.now() < deadline) {
    if ((await status()).phase === phase) {
      return true;
    }
    await sleep(50);
  }
  return false;
}

function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}

function idsOf(each: PciFunction): string {
  return [each.vendorId, each.deviceId].map((id) => id.toString(16).padStart(4, '0')).join(':');
}

async function milliseconds(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return Math.round(performance.now() - start);
}

async function startBackend(): Promise<RunningCommand> {
  tell.chapter('A backend process starts: one SR-IOV device, made of RAM');
  const command = new RunningCommand(
    'serve',
    '--loopback',
    `--socket-path=${socketPath}`,
    `--total-vfs=${TOTAL_VFS}`,
    '--unplug-timeout=1000',
    `--trace=${tracePath}`,
    '--trace-size=4M',
    '--log-level=info',
  );
  backend = command;
  let line = '';
  const took = await milliseconds(async () => {
    line = await command.ready;
  });
  tell.quote(`$ vfio-user-sriov serve --loopback --total-vfs=${TOTAL_VFS} --socket-path=…`);
  tell.check(line.startsWith('ready'), 'it serves the PF on a unix socket', `after ${took} ms`);
  return command;
}

async function bootVm(): Promise<ReferenceVmm> {
  tell.chapter('A VM boots and finds the physical function');
  const started = await ReferenceVmm.start({ pf: socketPath });
  vmm = started;
  const { pf, sriov } = started;
  const { standard, extended } = pf.capabilities;
  tell.check(idsOf(pf) === '1d0f:0053', 'PF found on the PCI bus', idsOf(pf));
  tell.check(
    standard.has(CapabilityId.msix) && standard.has(CapabilityId.pcie),
    'PCI Express and MSI-X capabilities',
  );
  const bar = pf.bars[0];
  const mapped = pf.areas.reduce((sum, area) => sum + area.length, 0);
  tell.check(
    bar?.size === 65536n && mapped > 0,
    'BAR 0 placed, its memory mapped straight into the VM',
    `64 KiB at ${hex(bar?.address ?? 0n)}, ${mapped / 1024} KiB of it mapped`,
  );
  tell.check(
    extended.has(ExtendedCapabilityId.sriov) && sriov.totalVfs === TOTAL_VFS,
    'SR-IOV capability',
    `TotalVFs ${sriov.totalVfs}, First VF Offset ${sriov.firstVfOffset}, VF Stride ${sriov.vfStride}`,
  );
  const vfBar = sriov.placedBars[0];
  tell.check(
    vfBar?.size === 16384n,
    'VF BARs sized and placed, room for every VF',
    `${TOTAL_VFS} × 16 KiB at ${hex(vfBar?.address ?? 0n)}`,
  );
  return started;
}

async function enable(vm: ReferenceVmm): Promise<PciFunction[]> {
  tell.chapter(`The guest writes ${VFS} to sriov_numvfs`);
  let vfs: PciFunction[] = [];
  const took = await milliseconds(async () => {
    vfs = await vm.enableVfs(VFS);
  });
  tell.check(
    vfs.length === VFS && vm.vfs.size === VFS,
    `${VFS} VFs hot-plugged, each over a connection of its own`,
    `${took} ms, 100 of them the wait of the PCIe standard`,
  );
  for (const [index, vf] of vfs.entries()) {
    const { functionNumber } = await new LoopbackDriver(vf).probe();
    tell.check(
      functionNumber === index + 1,
      `VF ${index} answers`,
      `${idsOf(vf)} at 00:01.${index + 1}, BAR 0 at ${hex(vf.bars[0]?.address ?? 0n)}`,
    );
  }
  tell.quote(await run('status', `--socket-path=${socketPath}`));
  return vfs;
}

async function useVf(vm: ReferenceVmm, vf: PciFunction, other: PciFunction): Promise<void> {
  tell.chapter('A driver in the guest uses VF 2');
  const driver = new LoopbackDriver(vf);
  await driver.setScratch(0xc0ffee);
  const own = await driver.scratch();
  const others = await new LoopbackDriver(other).scratch();
  tell.check(own === 0xc0ffee && others === 0, 'its registers are its own');
  await vf.setBusMaster(true);
  const interrupts = await vf.enableMsix();
  const data = Uint8Array.from({ length: LENGTH }, (_, i) => (i * 7) % 256);
  vm.memory.bytes.set(data, SOURCE);
  await driver.copy({
    source: BigInt(SOURCE),
    destination: BigInt(DESTINATION),
    length: LENGTH,
    vector: 1,
  });
  const copied = vm.memory.bytes.subarray(DESTINATION, DESTINATION + LENGTH);
  tell.check(
    copied.every((byte, i) => byte === data[i]),
    'DMA: it copied guest memory',
    `${LENGTH} bytes from ${hex(SOURCE)} to ${hex(DESTINATION)}`,
  );
  const signals = await interrupts[1]?.next();
  tell.check(signals === 1n, 'MSI-X: its vector 1 arrived when the copy was done');
  await driver.ring(3);
  tell.check((await interrupts[3]?.next()) === 1n, 'MSI-X: a doorbell raised vector 3');
}

async function disable(vm: ReferenceVmm, vf: PciFunction): Promise<void> {
  tell.chapter('The guest writes 0 to sriov_numvfs');
  const took = await milliseconds(() => vm.disableVfs());
  tell.check(
    vm.vfs.size === 0 && !vf.client.isOpen,
    'the VM was asked to let go of every VF, and did',
    `${took} ms, 1000 of them the wait of the PCIe standard`,
  );
  tell.check(await reaches('disabled'), 'only then were the VFs removed');
}

async function holdOn(vm: ReferenceVmm): Promise<void> {
  tell.chapter('A VMM that does not let go');
  await vm.enableVfs(2);
  const { generation } = await status();
  tell.check(vm.vfs.size === 2, '2 VFs enabled again', `generation ${generation}`);
  vm.unplugManners = 'ignore';
  await vm.disableVfs();
  tell.check(await reaches('quarantined'), 'its VFs are kept in quarantine, not torn away');
  tell.check((await status()).quarantine.length === 2, '`vfio-user-sriov status` shows them');
  tell.quote(await run('status', `--socket-path=${socketPath}`));
  const held = vm.vfs.get(0);
  tell.check(
    (await held?.readRegister(0, 0)) === 0xffffffff,
    'what it holds is dead: the VF reads all ones',
  );
  const { functionNumber } = await new LoopbackDriver(vm.pf).probe();
  tell.check(functionNumber === 0, 'the PF goes on working');
  const refused = await vm.enableVfs(1).then(
    () => '',
    (error: Error) => error.message,
  );
  tell.check(refused !== '', 'the next enable fails as hardware fails', refused);
  vm.unplugManners = 'release';
  vm.kill();
  tell.check(await reaches('disabled'), 'the VMM is killed, and its VFs are free again');
  const next = await ReferenceVmm.start({ pf: socketPath });
  vmm = next;
  tell.check(
    (await next.enableVfs(VFS)).length === VFS,
    `the next VM enables ${VFS} VFs on the same backend`,
  );
}

async function end(vm: ReferenceVmm, command: RunningCommand): Promise<void> {
  tell.chapter('The end');
  await vm.close();
  tell.check((await command.stop()) === 0, 'the backend ends on SIGTERM with exit code 0');
  tell.check(!existsSync(socketPath), 'and its socket is gone');
  // Stays, for whoever wants to look at it.
  const timelinePath = join(mkdtempSync(join(tmpdir(), 'sriov-timeline-')), 'timeline.html');
  await run('trace', tracePath, `--html=${timelinePath}`);
  tell.check(existsSync(timelinePath), 'what happened, on a timeline', timelinePath);
}

async function cleanUp(): Promise<void> {
  vmm?.kill();
  await backend?.stop();
  rmSync(directory, { recursive: true, force: true });
}

const isCutShort = whenCutShort(cleanUp);
try {
  tell.title(
    'vfio-user-sriov: SR-IOV inside a VM',
    'A real backend process, a small VMM, no hardware, no privileges.',
  );
  const command = await startBackend();
  const vm = await bootVm();
  const vfs = await enable(vm);
  await useVf(vm, vfs[2]!, vfs[1]!);
  await disable(vm, vfs[2]!);
  await holdOn(vm);
  await end(vmm ?? vm, command);
  tell.end();
} catch (error) {
  if (!isCutShort()) {
    tell.failed(error, backend?.log ?? '');
    process.exitCode = 1;
  }
} finally {
  await cleanUp();
}
