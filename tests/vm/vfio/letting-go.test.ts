// Every way in which VFs and the PF are let go of, on a real kernel: the end state is that of the beginning, or the next
// start makes it so, and the host never hangs.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PF_FOLDER, VfioHost } from './vfio-host.ts';

let host: VfioHost;

beforeAll(async () => {
  // Room for the 512 MiB that are mapped.
  host = await VfioHost.start({ memoryMegabytes: 1200 });
});

afterAll(async () => {
  await host?.end();
});

async function expectDisabled() {
  expect(await host.numVfs()).toBe('0');
}

it('a VF that another process holds is reported, and goes when that process has gone', async () => {
  expect(await host.scenario('held-vf', 'fd')).toContain('ok everything is given back');
  await expectDisabled();
});

it('a VF that another process only maps is reported as well', async () => {
  expect(await host.scenario('held-vf', 'map')).toContain('ok everything is given back');
  await expectDisabled();
});

it('what a killed backend left is removed by the next start, and strangers cannot open it', async () => {
  const pid = await host.startScenario('serve-until-killed', '3');
  await host.waitForOutput('serve-until-killed', 'READY');
  await host.vm.check(`kill -9 ${pid}`);
  await host.vm.check(`while kill -0 ${pid}; do sleep 0.1; done 2>/dev/null; true`);
  expect(await host.numVfs()).toBe('3');
  const vf = await host.vm.check(`basename $(readlink ${PF_FOLDER}/virtfn0)`);
  await host.scenario('no-token', vf);
  const output = await host.scenario('enable-and-disable', '1');
  expect(output).toContain('removed the VFs that a predecessor left {"count":3}');
  await expectDisabled();
});

it('a second backend for the same PF is refused and told who has it', async () => {
  const pid = await host.startScenario('serve-until-killed', '1');
  await host.waitForOutput('serve-until-killed', 'READY');
  await host.scenario('refused', `0000:01:00.0 'another backend serves this PF .pid ${pid}.'`);
  await host.vm.check(`kill -9 ${pid}`);
  await host.scenario('enable-and-disable', '1');
});

it('VFs that somebody else enabled are left alone', async () => {
  await host.vm.check(`echo 2 > ${PF_FOLDER}/sriov_numvfs`);
  await host.scenario('refused', "0000:01:00.0 '2 VFs are enabled, and not by this program'");
  expect(await host.numVfs()).toBe('2');
  await host.vm.check(`echo 0 > ${PF_FOLDER}/sriov_numvfs`);
});

it('the kernel gets VFs back that it asks for', async () => {
  const pid = await host.startScenario('serve-until-killed', '2');
  await host.waitForOutput('serve-until-killed', 'READY');
  await host.vm.check(`timeout 20 sh -c 'echo 0 > ${PF_FOLDER}/sriov_numvfs'`);
  await host.waitForOutput('serve-until-killed', 'RELEASED');
  await expectDisabled();
  await host.vm.check(`kill -9 ${pid}`);
});

it('the kernel gets the PF back that it asks for', async () => {
  await host.startScenario('serve-until-killed', '2');
  await host.waitForOutput('serve-until-killed', 'READY');
  await host.vm.check(`timeout 20 sh -c 'echo 0000:01:00.0 > ${PF_FOLDER}/driver/unbind'`);
  await host.waitForOutput('serve-until-killed', 'CLOSED');
  await host.vm.check(`! test -e ${PF_FOLDER}/driver`);
  await host.bind();
  await host.scenario('enable-and-disable', '1');
});

it('a PF that is not there, not SR-IOV, or not prepared is refused with its fix', async () => {
  await host.scenario('refused', "0000:77:00.0 'there is no such PCI function'");
  await host.scenario('refused', "0000:00:04.0 'no SR-IOV'");
  await host.vm.check('echo 0 > /sys/module/vfio_pci/parameters/enable_sriov');
  await host.scenario('refused', "0000:01:00.0 'enable_sriov off.*prepare'");
  await host.vm.check('echo 1 > /sys/module/vfio_pci/parameters/enable_sriov');
  await host.vm.check(`echo 0000:01:00.0 > ${PF_FOLDER}/driver/unbind`);
  await host.scenario('refused', "0000:01:00.0 'no driver, not vfio-pci.*prepare'");
  await host.bind();
});

it('guest memory is mapped at the price of the bare ioctl, and refusals are explained', async () => {
  const output = await host.scenario('map-memory', '512');
  console.log(output);
  const [, pairs, shortest] = /ratio of pairs ([\d.]+), of the shortest ([\d.]+)/.exec(output)!;
  // The figures are for the reader: a busy machine moves them. Mapping twice, or page by page, would double them; undoing the mapping first costs an eighth.
  expect(Math.min(Number(pairs), Number(shortest))).toBeLessThan(1.1);
  expect(output).toContain('ok everything is given back');
});

it('the kernel complained about nothing', async () => {
  await host.expectCleanKernelLog();
});
