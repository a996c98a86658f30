import { expect, it } from 'vitest';
import type { VfioUserClient } from '../../../../vmm-glue/client/client.ts';
import type { MappedArea } from '../../../../vmm-glue/client/memory.ts';
import { PciFunction } from '../../../../vmm-glue/reference-vmm/pci-function.ts';

const BAR = { index: 0, offset: 0x10, size: 4096n, is64Bit: true, prefetchable: true };

it.each(['detach', 'drop'] as const)(
  'gives back what a server lets it map anew while it lets go of everything, by %s',
  async (way) => {
    let mapped = 0;
    let answer = (): void => {};
    const area = (): MappedArea => {
      mapped++;
      return { close: () => mapped-- } as unknown as MappedArea;
    };
    const client = {
      isOpen: true,
      carriesFds: true,
      mapRegion: () =>
        new Promise((resolve) => {
          answer = () => resolve([area()]);
        }),
      close: () => {},
    };
    const vf = new PciFunction('VF 0', client as unknown as VfioUserClient);
    vf.adopt([{ ...BAR, isIo: false, address: 0n }], 0, 0);
    const mapping = vf.mapBars();
    await Promise.resolve();
    answer();
    await mapping;
    expect(mapped).toBe(1);

    const remapping = vf.remapBar(BAR.index);
    await Promise.resolve();
    await vf[way]();
    answer();
    await remapping;
    expect(mapped).toBe(0);
    expect(vf.areas).toEqual([]);
  },
);
