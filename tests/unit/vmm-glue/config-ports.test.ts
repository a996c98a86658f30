// Config space by the PC's ports: what is written to them for a register.
import { expect, it } from 'vitest';
import { configAddress, portWrites } from '../../../vmm-glue/qemu/config-ports.ts';

it('selects registers as the PC does: enable bit, bus, device, function, dword', () => {
  expect(configAddress(0x01_3a, 0x14).toString(16)).toBe('80013a14');
});

it('a write selects its register first, and keeps its width', () => {
  const write = { routingId: 0x0101, register: 0x04, width: 2, value: 2 } as const;
  expect(portWrites(write)).toEqual([
    { port: 0xcf8, width: 4, value: 0x8001_0104 },
    { port: 0xcfc, width: 2, value: 2 },
  ]);
});
