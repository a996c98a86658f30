// `npm run demo:qemu`: an unmodified Linux in an unmodified QEMU enables VFs, uses one and gives them back. Everything
// is started by the command line `vfio-user-sriov qemu`; all that is shown is looked at from inside the guest, and the
// demo ends with 0 only if all of it was true. QEMU, kernel and busybox are the
// test lab's, which runs as a process and fetches them at the first run.

import { basename } from 'node:path';
import { whenCutShort } from './clean-up.ts';
import { EXECUTABLE } from './command-line.ts';
import { LabGuest } from './lab-guest.ts';
import { Narrator } from './narrator.ts';
import { PCI_FACTS, pciTree } from './pci-tree.ts';
import { argumentsOf } from './program-arguments.ts';

const USAGE = `usage: npm run demo:qemu
Shows an unmodified Linux in an unmodified QEMU that enables VFs, uses one and gives them back. QEMU, kernel and busybox are
the test lab's, fetched at the first run. Ends with 0 only if all that it shows was true.
`;
const VFS = 4;
const PF = '0000:01:00.0';
const PF_FOLDER = `/sys/bus/pci/devices/${PF}`;
/** Line of sysfs's `resource` that shows the room for BAR 0 of all VFs. */
const VF_BAR_LINE = 8;
const DRIVEN_VF = 2;
const COPIED_BYTES = 1_000_000;

argumentsOf(USAGE);
const tell = new Narrator();
let vm: LabGuest | undefined;

async function seconds(work: () => Promise<unknown>): Promise<string> {
  const start = performance.now();
  await work();
  return `${((performance.now() - start) / 1000).toFixed(1)} s`;
}

async function bootGuest(): Promise<LabGuest> {
  tell.chapter('An ordinary QEMU boots an ordinary Linux');
  tell.quote(
    `$ vfio-user-sriov qemu --loopback --total-vfs=${VFS} -- qemu-system-x86_64 -machine q35 …`,
  );
  const launcher = ['qemu', '--loopback', `--total-vfs=${VFS}`, '--log-format=pretty', '--'];
  const guest = new LabGuest(
    [
      ...['pci-pf-stub', 'vfio-pci', 'vfio_iommu_type1'].map((name) => `--module=${name}`),
      '--pci-function',
      // A virtual IOMMU, so that a program in the guest can drive a VF through the guest's own vfio-pci.
      '--machine=kernel-irqchip=split',
      ...['intel_iommu=on', 'iommu=nopt'].map((parameter) => `--append=${parameter}`),
      ...['-device', 'intel-iommu,intremap=on,caching-mode=on'].map((each) => `--qemu=${each}`),
    ],
    [process.execPath, EXECUTABLE, ...launcher],
  );
  vm = guest;
  let version = '';
  const took = await seconds(async () => {
    version = await guest.booted();
  });
  const kernel = await guest.check('uname -r');
  tell.check(true, 'the guest is up', `QEMU ${version}, Linux ${kernel}, ${took}`);
  return guest;
}

async function findCapability(guest: LabGuest): Promise<void> {
  tell.chapter('The guest finds a physical function that offers virtual ones');
  const ids = await guest.check(`cat ${PF_FOLDER}/vendor ${PF_FOLDER}/device`);
  tell.check(ids === '0x1d0f\n0x0053', 'the PF, with its IDs', `${PF} ${ids.replace('\n', ' ')}`);
  const total = await guest.check(`cat ${PF_FOLDER}/sriov_totalvfs`);
  tell.check(Number(total) === VFS, 'its SR-IOV capability', `sriov_totalvfs ${total}`);
  const [start, end] = (await guest.check(`sed -n ${VF_BAR_LINE}p ${PF_FOLDER}/resource`)).split(
    ' ',
  );
  const bytes = Number(end) - Number(start) + 1;
  tell.check(
    Number(start) > 0 && bytes % VFS === 0,
    'room for the BARs of all VFs, assigned by the guest',
    `${VFS} × ${bytes / VFS / 1024} KiB at 0x${Number(start).toString(16)}`,
  );
  const driver = basename(await guest.check(`readlink ${PF_FOLDER}/driver`));
  tell.check(driver === 'pci-pf-stub', "a driver of the kernel's own has it", driver);
}

/** The addresses of the VFs. */
async function enable(guest: LabGuest): Promise<string[]> {
  tell.chapter(`The guest enables ${VFS} VFs`);
  tell.quote(`# echo ${VFS} > ${PF_FOLDER}/sriov_numvfs`);
  const took = await seconds(() => guest.check(`echo ${VFS} > ${PF_FOLDER}/sriov_numvfs`));
  const links = await guest.check(`cd ${PF_FOLDER} && for v in virtfn*; do readlink $v; done`);
  const vfs = links.split('\n').map((link) => basename(link));
  tell.check(
    vfs.length === VFS,
    'they are there',
    `${vfs.map((vf) => vf.slice(5)).join(', ')}, ${took}`,
  );
  for (const [index, vf] of vfs.entries()) {
    const number = Number(await guest.check(`pci-function bar ${vf} 4`));
    const [address] = (await guest.check(`head -n 1 /sys/bus/pci/devices/${vf}/resource`)).split(
      ' ',
    );
    const where = `BAR 0 at 0x${Number(address).toString(16)}`;
    tell.check(number === index + 1, `VF ${index} answers, and it is that one`, where);
  }
  return vfs;
}

async function drive(guest: LabGuest, vf: string): Promise<void> {
  tell.chapter(`A program in the guest drives VF ${DRIVEN_VF}, through the guest's own vfio-pci`);
  await guest.check(`echo vfio-pci > /sys/bus/pci/devices/${vf}/driver_override`);
  await guest.check(`echo ${vf} > /sys/bus/pci/drivers_probe`);
  tell.quote(pciTree(await guest.check(PCI_FACTS)).join('\n'));
  const ring = await guest.run(`pci-function drive ${vf} ring=3`);
  tell.check(ring.status === 0, 'an interrupt: MSI-X, by a doorbell', ring.output.trim());
  const copy = await guest.run(`pci-function drive ${vf} copy=${COPIED_BYTES}:1`);
  tell.check(copy.status === 0, 'DMA: every byte arrived, no other changed', copy.output.trim());
  const reset = await guest.run(`pci-function drive ${vf} ring=0 flr ring=0 copy=4096:2`);
  tell.check(
    reset.status === 0,
    'both go on after a function level reset',
    reset.output.trim().split('\n').join(', '),
  );
}

async function disable(guest: LabGuest): Promise<void> {
  tell.chapter('The guest gives the VFs back');
  tell.quote(`# echo 0 > ${PF_FOLDER}/sriov_numvfs`);
  const took = await seconds(() => guest.check(`echo 0 > ${PF_FOLDER}/sriov_numvfs`));
  const left = await guest.check('ls /sys/bus/pci/devices');
  tell.check(!/01:00\.[1-7]/.test(left), 'they are gone', `${took}, of which the kernel waits 1 s`);
  await guest.check(`echo 1 > ${PF_FOLDER}/sriov_numvfs`);
  const again = Number(await guest.check('pci-function bar 0000:01:00.1 4'));
  tell.check(again === 1, 'and one comes back, when it is asked for');
}

async function restart(guest: LabGuest): Promise<void> {
  tell.chapter('The guest restarts, with a VF enabled');
  const took = await seconds(() => guest.reboot());
  const count = await guest.check(`cat ${PF_FOLDER}/sriov_numvfs`);
  tell.check(count === '0', 'it begins with no VFs', took);
  const { status } = await guest.run(`echo ${VFS} > ${PF_FOLDER}/sriov_numvfs`);
  tell.check(status === 0, `and enables ${VFS} VFs again`);
}

async function end(guest: LabGuest): Promise<void> {
  tell.chapter('The end');
  const trouble = /WARNING:|BUG:|Oops|Call Trace/.exec(await guest.consoleLog());
  tell.check(trouble === null, "the guest's kernel had nothing to complain of");
  const code = await guest.powerOff();
  tell.check(code === 0, 'the guest switches off, and QEMU, glue and backend end with it');
}

tell.title(
  'vfio-user-sriov: SR-IOV inside a VM of stock QEMU',
  'An unmodified Linux enables VFs. Nothing but RAM behind them, no hardware.',
);
const isCutShort = whenCutShort(async () => await vm?.end());
try {
  const guest = await bootGuest();
  await findCapability(guest);
  const vfs = await enable(guest);
  await drive(guest, vfs[DRIVEN_VF]!);
  await disable(guest);
  await restart(guest);
  await end(guest);
  tell.end();
} catch (error) {
  if (!isCutShort()) {
    tell.failed(error, vm?.log ?? '');
    process.exitCode = 1;
  }
} finally {
  await vm?.end();
}
