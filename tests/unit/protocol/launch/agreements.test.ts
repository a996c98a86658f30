// What launcher and backend agree on besides the ready line: names of sockets, room for their paths, routing IDs.
import { expect, it } from 'vitest';
import { parseBytes, parseWholeNumber } from '../../../../protocol/launch/option-values.ts';
import { vfRoutingIdOffset } from '../../../../protocol/launch/routing-id-spacing.ts';
import {
  isSocketPath,
  MAX_SOCKET_PATH_BYTES,
  vfSocketPath,
} from '../../../../protocol/launch/socket-names.ts';

it('VFs follow their PF one by one', () => {
  expect([0, 1, 62].map(vfRoutingIdOffset)).toEqual([1, 2, 63]);
});

it.each([
  ['/run/vfs', '/run/vfs/vf3.sock'],
  ['/run/vfs/', '/run/vfs/vf3.sock'],
  ['/', '/vf3.sock'],
  ['vfs', 'vfs/vf3.sock'],
])('a folder %s holds the socket %s', (folder, path) => {
  expect(vfSocketPath(folder, 3)).toBe(path);
});

it('a socket path holds as many bytes as sun_path, however many letters they are', () => {
  expect(isSocketPath('/'.padEnd(MAX_SOCKET_PATH_BYTES, 'x'))).toBe(true);
  expect(isSocketPath('/'.padEnd(MAX_SOCKET_PATH_BYTES + 1, 'x'))).toBe(false);
  expect(isSocketPath('/'.padEnd(MAX_SOCKET_PATH_BYTES, 'ü'))).toBe(false);
  expect(isSocketPath('/a\0b')).toBe(false);
});

it.each([
  ['16384', 16384],
  ['16K', 16384],
  ['64m', 2 ** 26],
  ['1G', 2 ** 30],
  ['1T', undefined],
  ['-1', undefined],
  ['0x10', undefined],
  ['', undefined],
  ['9999999999999G', undefined],
])('the size %j is %j bytes', (text, bytes) => {
  expect(parseBytes(text)).toBe(bytes);
});

it.each([
  ['3', 3],
  ['03', 3],
  ['0', undefined],
  ['10', undefined],
  ['2.0', undefined],
  ['1e0', undefined],
])('of 1 to 9, %j is the number %j', (text, value) => {
  expect(parseWholeNumber(text, 1, 9)).toBe(value);
});
