import { test } from 'vitest';
import { VfioHost } from './vfio-host.ts';

test('dev', async () => {
  const host = await VfioHost.start();
  const go = async (c: string) => {
    const r = await host.vm
      .run(c, { timeoutMs: 40000 })
      .catch((e) => ({ status: -1, output: String(e) }));
    console.log('$', c, r.status, '\n' + r.output);
  };
  await host.startScenario('zz');
  await go(
    'for i in $(seq 60); do grep -q "looks as" /tmp/zz.out && break; sleep 0.5; done; sleep 8; cat /tmp/zz.out; for v in 01:10.0 01:10.2; do hexdump -C /sys/bus/pci/devices/0000:$v/config | head -12; done; hexdump -C /sys/bus/pci/devices/0000:01:00.0/config | head -12',
  );
  await go('dmesg | tail -12');
  await host.end();
});
