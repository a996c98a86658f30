// Two PFs, each with a backend of its own, in one QEMU with one glue: in both topologies at once, their VFs mapped, with two CPUs.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { BY_A_GUEST } from '../patience.ts';
import { CliProcess, mappedVfs } from './cli-process.ts';
import { sleepWhileRead } from './power-state.ts';
import { Bar, SriovGuest } from './sriov-guest.ts';

const folder = mkdtempSync(join(tmpdir(), 'two-backends-'));
const qmpPath = join(folder, 'qmp.sock');
const running: CliProcess[] = [];

let first: SriovGuest;
let second: SriovGuest;

function socketPath(index: number): string {
  return join(folder, `pf${index}.sock`);
}

/** Starts a backend, and gives QEMU's arguments for it. */
async function startBackend(index: number, totalVfs: number, ...more: string[]) {
  const backend = new CliProcess(
    'serve',
    '--loopback',
    `--total-vfs=${totalVfs}`,
    `--socket-path=${socketPath(index)}`,
    `--vf-sockets=${join(folder, `vfs${index}`)}`,
  );
  running.push(backend);
  const [ready] = await backend.waitFor(/^ready .*$/m);
  const printer = new CliProcess(
    'qemu-args',
    `--ready=${ready}`,
    `--qmp=${qmpPath}`,
    `--index=${index}`,
    '--json',
    ...more,
  );
  expect(await printer.ended()).toBe(0);
  return JSON.parse(printer.output) as string[];
}

beforeAll(async () => {
  const behindPort = await startBackend(0, 7);
  const onRootBus = await startBackend(1, 9, '--topology=pcie.0');
  // Both print the QMP socket, which QEMU takes only once.
  const qmp = onRootBus.indexOf('-qmp');
  const args = [...behindPort, ...onRootBus.slice(0, qmp), ...onRootBus.slice(qmp + 2)];
  first = await SriovGuest.boot({
    starter: (qemu) => ({ command: qemu, args }),
    cpus: 2,
  });
  const address = await first.vm.check(
    'cd /sys/bus/pci/devices; for f in 0000:00:*; do [ -e $f/sriov_totalvfs ] && echo $f; done; true',
  );
  second = first.withPf(address);
  running.push(
    new CliProcess(
      'attach-qemu',
      `--qmp=${qmpPath}`,
      `--socket-path=${socketPath(0)}`,
      `--socket-path=${socketPath(1)}`,
    ),
  );
  for (const backend of running.slice(0, 2)) {
    await backend.waitFor(/attached as glue/);
  }
  await first.bindDriver('pci-pf-stub');
  await second.bindDriver('pci-pf-stub');
});

afterAll(async () => {
  await first?.end();
  for (const each of running) {
    await each.kill('SIGKILL');
  }
  rmSync(folder, { recursive: true, force: true });
});

it('each PF makes its own VFs', async () => {
  await first.setNumVfs(7);
  await first.expectVfContents(7);
  await second.setNumVfs(9);
  await second.expectVfContents(9);
  await first.expectVfContents(7);
});

it('the VFs of both are mapped, each over its own slot', async () => {
  await expect.poll(() => mappedVfs(socketPath(0)), BY_A_GUEST).toBe(7);
  await expect.poll(() => mappedVfs(socketPath(1)), BY_A_GUEST).toBe(9);
  await first.writeBar(first.vf(0), Bar.memory, 0x11);
  await second.writeBar(second.vf(0), Bar.memory, 0x22);
  await second.writeBar(second.vf(8), Bar.memory, 0x33);
  const read = [first.vf(0), second.vf(0), second.vf(8)].map((vf) => first.readBar(vf, Bar.memory));
  expect((await Promise.all(read)).map(Number)).toEqual([0x11, 0x22, 0x33]);
});

it('a VF goes to D3hot and back while the other CPU of the guest reads it', async () => {
  await sleepWhileRead(first, first.vf(2));
  await expect.poll(() => mappedVfs(socketPath(0)), BY_A_GUEST).toBe(7);
  await first.expectVfContents(7);
});

it('one PF gives its VFs back while the other keeps its own', async () => {
  await first.setNumVfs(0);
  await second.expectVfContents(9);
  expect(await first.virtfns()).toEqual([]);
  expect([await mappedVfs(socketPath(0)), await mappedVfs(socketPath(1))]).toEqual([0, 9]);
  await second.setNumVfs(0);
});

it('both enable and disable at the same time, time and again', async () => {
  for (let round = 0; round < 4; round++) {
    await first.vm.check(
      `echo 5 > ${first.sysfs}/sriov_numvfs & pid=$!; echo 8 > ${second.sysfs}/sriov_numvfs && wait $pid`,
    );
    await first.expectVfContents(5);
    await second.expectVfContents(8);
    await first.vm.check(
      `echo 0 > ${first.sysfs}/sriov_numvfs & pid=$!; echo 0 > ${second.sysfs}/sriov_numvfs && wait $pid`,
    );
    expect([...(await first.virtfns()), ...(await second.virtfns())]).toEqual([]);
  }
});

it('neither the kernel nor QEMU had anything to complain of', async () => {
  await first.expectNoComplaints();
});
