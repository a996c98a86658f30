// An NVMe controller with SR-IOV: what its DMA writes can be checked byte for byte.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { VfioHost } from './vfio-host.ts';

const NVME_DEVICE = [
  ...['-device', 'pcie-root-port,id=rp1,chassis=1,slot=1,addr=4'],
  ...['-device', 'nvme-subsys,id=subsystem'],
  '-device',
  'nvme,serial=LAB-1,bus=rp1,subsys=subsystem,max_ioqpairs=10,msix_qsize=11,sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=8',
];

let host: VfioHost;

beforeAll(async () => {
  host = await VfioHost.start({ devices: NVME_DEVICE });
});

afterAll(async () => {
  await host?.end();
});

it('PF and VFs do DMA through the IOMMU and signal by MSI-X, also after reset and re-enable', async () => {
  const output = await host.scenario('nvme-identify');
  console.log(output);
  expect(output).toContain('ok everything is given back');
});

it.each(['per-function', 'shared'])(
  'VFs that see other memory than the PF get it, containers: %s',
  async (mode) => {
    const output = await host.scenario('nvme-own-memory', mode);
    expect(output).toContain('ok everything is given back');
  },
);

it('a served guest does DMA, none of which passes through the backend', async () => {
  const output = await host.scenario('served-nvme');
  console.log(output);
  expect(output).toContain('ok VM and backend end');
});

it('with --trap every access to a register of the card is recorded', async () => {
  const output = await host.scenario('served-trapped');
  expect(output).toContain('ok the recording has both reads');
});

it('the kernel complained about nothing but the DMA that was provoked', async () => {
  const log = await host.vm.check('dmesg');
  const complaints = log
    .split('\n')
    .filter((line) => /WARNING|BUG:|Oops|hung_task|blocked for more/.test(line));
  expect(complaints).toEqual([]);
  expect(log).toMatch(/DMAR:.*fault|DMAR: DRHD: handling fault/);
});
