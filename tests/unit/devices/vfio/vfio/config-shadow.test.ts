import { expect, it } from 'vitest';
import { ConfigShadow } from '../../../../../backend/devices/vfio/vfio/config-shadow.ts';
import { CapabilityId } from '../../../../../backend/pci/spec/capability-ids.ts';
import { HEADER } from '../../../../../backend/pci/spec/header.ts';
import { POWER_MANAGEMENT } from '../../../../../backend/pci/spec/power-management.ts';
import { configSpace } from '../../../../fakes/vfio-host.ts';

it('a write is read back', () => {
  const shadow = new ConfigShadow(configSpace(true));
  shadow.write({ offset: 4, length: 2, value: 0x0406 });
  expect(shadow.read(4, 4) & 0xffff).toBe(0x0406);
});

it.each([
  ['Status', 0x07, 0xf0, 0x50, 0xa0],
  ['Device Status', 0xa0 + 0x0a, 0x0f, 0x05, 0x0a],
  ['Uncorrectable Error Status', 0x100 + 0x05, 0xf0, 0x50, 0xa0],
  ['Correctable Error Status', 0x100 + 0x11, 0xf0, 0x50, 0xa0],
])('a one written to %s clears that bit only', (_register, offset, seen, written, left) => {
  const shadow = new ConfigShadow(configSpace(true));
  shadow.observe(offset, Uint8Array.of(seen));
  shadow.write({ offset, length: 1, value: written });
  expect(shadow.read(offset, 1)).toBe(left);
});

it('a dword that spans Command and Status treats each as it is', () => {
  const shadow = new ConfigShadow(configSpace(true));
  shadow.observe(4, Uint8Array.of(0, 0, 0x10, 0xf9));
  shadow.write({ offset: 4, length: 4, value: 0xff08_0406 });
  expect(shadow.read(4, 4)).toBe(0x0010_0406);
});

it('a register with a status bit among others keeps what may be written', () => {
  const image = configSpace(true);
  const pointer = HEADER.capabilitiesPointer.offset;
  image.set([CapabilityId.powerManagement, image[pointer]!], 0x40);
  image[pointer] = 0x40;
  const offset = 0x40 + POWER_MANAGEMENT.controlStatus.offset;
  const shadow = new ConfigShadow(image);
  shadow.observe(offset, Uint8Array.of(0x08, 0x80));
  shadow.write({ offset, length: 2, value: 0x8103 });
  expect(shadow.read(offset, 2)).toBe(0x010b);
});

it('queued writes come out once and in order', () => {
  const shadow = new ConfigShadow(configSpace(true));
  shadow.queue({ offset: 4, length: 2, value: 2 });
  shadow.queue({ offset: 4, length: 2, value: 6 });
  expect(shadow.takeWrites().map(({ value }) => value)).toEqual([2, 6]);
  expect(shadow.takeWrites()).toEqual([]);
});

it('the image that it was made from is not changed', () => {
  const image = configSpace(true);
  new ConfigShadow(image).write({ offset: 4, length: 2, value: 0xffff });
  expect(image[4]).toBe(0);
});

it('a function with 256 bytes of config space reads 0 beyond', () => {
  const shadow = new ConfigShadow(configSpace(true).subarray(0, 256));
  shadow.write({ offset: 0x100, length: 4, value: 1 });
  expect(shadow.read(0x100, 4)).toBe(0);
});
