// Whatever the host is busy with, guest and VMM are answered. On two CPUs, so that what waits is not the machine.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { VfioHost } from './vfio-host.ts';

let host: VfioHost;

beforeAll(async () => {
  host = await VfioHost.start({ cpus: 2, memoryMegabytes: 1200 });
});

afterAll(async () => {
  await host?.end();
});

test('config space of the PF stays quick while the host makes and removes VFs', async () => {
  const output = await host.scenario('config-while-busy');
  console.log(output);
  expect(output).toContain('ok no read waited for the host');
});

test('while guest memory is mapped, other sessions are answered', async () => {
  const output = await host.scenario('map-while-serving', '384');
  console.log(output);
  expect(output).toContain('ok nobody waited for the kernel');
});

test('the kernel complained about nothing', async () => {
  await host.expectCleanKernelLog();
});
