// Owning a PF on a real kernel, and making and removing its VFs.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { VfioHost } from './vfio-host.ts';

let host: VfioHost;

beforeAll(async () => {
  host = await VfioHost.start();
});

afterAll(async () => {
  await host?.end();
});

it('the PF is owned: config space, BAR, MSI-X by eventfd, reset', async () => {
  const output = await host.scenario('own-the-pf');
  console.log(output);
  expect(output).toContain('ok everything is given back');
});

it('interrupts of VFs reach their eventfds, also after resets', async () => {
  expect(await host.scenario('vf-interrupts')).toContain('ok everything is given back');
});

it('VFs are made and removed 50 times without a trace', async () => {
  const output = await host.scenario('enable-and-disable', '50', 200_000);
  console.log(output);
  expect(output).toContain('ok no VF is left');
});

it('the kernel complained about nothing', async () => {
  await host.expectCleanKernelLog();
});
