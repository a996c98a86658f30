import { expect, it, vi } from 'vitest';
import { OpenDevices } from '../../../../backend/devices/kit/open-devices.ts';

it('what functions of one device have in common is made for the first and gone with the last', () => {
  const devices = new OpenDevices<object>();
  const make = vi.fn(() => ({}));
  const common = devices.enter('a', make);
  expect(devices.enter('a', make)).toBe(common);
  expect(devices.enter('b', make)).not.toBe(common);
  expect([devices.leave('a'), devices.leave('a')]).toEqual([false, true]);
  expect(devices.enter('a', make)).not.toBe(common);
  expect(make).toHaveBeenCalledTimes(3);
});

it('nothing is kept of a device whose common things could not be made', () => {
  const devices = new OpenDevices<number>();
  const fail = () => {
    throw new Error('no');
  };
  expect(() => devices.enter('a', fail)).toThrow('no');
  expect(devices.enter('a', () => 1)).toBe(1);
  expect(devices.leave('a')).toBe(true);
});
