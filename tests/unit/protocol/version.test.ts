import { describe, expect, it } from 'vitest';
import { WireError } from '../../../protocol/errno.ts';
import {
  DEEPEST_NESTING,
  LONGEST_VERSION,
  parseVersion,
} from '../../../protocol/vfio-user/version.ts';

const body = (text: string) => new Uint8Array(Buffer.from(`\0\0\0\0${text}`));

describe('the size of VERSION', () => {
  const padded = (bytes: number) => body(`{"x":"${'x'.repeat(bytes - 4 - 8)}"}`);
  const nested = (levels: number) =>
    body(`{"x":${'['.repeat(levels - 1)}"]]]\\"[["${']'.repeat(levels - 1)}}`);

  it('is 4 KiB at most', () => {
    expect(padded(LONGEST_VERSION)).toHaveLength(4096);
    expect(parseVersion(padded(LONGEST_VERSION)).capabilities).toEqual({});
    expect(() => parseVersion(padded(LONGEST_VERSION + 1))).toThrow('at most 4096 are read');
  });

  it('is 16 levels at most, where brackets in texts do not count', () => {
    expect(parseVersion(nested(DEEPEST_NESTING)).capabilities).toEqual({});
    expect(() => parseVersion(nested(DEEPEST_NESTING + 1))).toThrow('more than 16 levels deep');
  });

  it('is decided before anything is read: brackets without end are no fault of ours', () => {
    expect(() => parseVersion(body('['.repeat(4000)))).toThrow(WireError);
  });
});

describe('reading VERSION', () => {
  it('takes JSON with a NUL, without one, and with bytes behind it', () => {
    const expected = { capabilities: { max_msg_fds: 3 } };
    const json = JSON.stringify(expected);
    expect(parseVersion(body(`${json}\0`))).toMatchObject(expected);
    expect(parseVersion(body(json))).toMatchObject(expected);
    expect(parseVersion(body(`${json}\0rest`))).toMatchObject(expected);
  });

  it('takes the absence of JSON, and JSON without capabilities', () => {
    expect(parseVersion(body('')).capabilities).toBeUndefined();
    expect(parseVersion(body('\0')).capabilities).toBeUndefined();
    expect(parseVersion(body('{}')).capabilities).toEqual({});
  });

  const malformed: [string, Uint8Array][] = [
    ['a body of 3 bytes', new Uint8Array(3)],
    ['JSON that ends early', body('{"capabilities":')],
    ['bytes that are no UTF-8', new Uint8Array([0, 0, 0, 0, 0x7b, 0xff, 0xfe])],
    ['an array', body('[]')],
    ['null', body('null')],
    ['capabilities that are an array', body('{"capabilities":[]}')],
    ['max_msg_fds as text', body('{"capabilities":{"max_msg_fds":"8"}}')],
    ['max_msg_fds below zero', body('{"capabilities":{"max_msg_fds":-1}}')],
    ['max_dma_maps with a fraction', body('{"capabilities":{"max_dma_maps":1.5}}')],
    ['max_data_xfer_size of 0', body('{"capabilities":{"max_data_xfer_size":0}}')],
    ['pgsizes beyond 64 bits', body('{"capabilities":{"pgsizes":1e30}}')],
    ['write_multiple as a number', body('{"capabilities":{"write_multiple":1}}')],
    ['twin_socket as a flag', body('{"capabilities":{"twin_socket":true}}')],
    ['migration as null', body('{"capabilities":{"migration":null}}')],
    ['sriov_hotplug without a version', body('{"capabilities":{"sriov_hotplug":{}}}')],
    ['sriov_hotplug of version 0', body('{"capabilities":{"sriov_hotplug":{"version":0}}}')],
    [
      'a program that is a number',
      body('{"capabilities":{"sriov_hotplug":{"version":1,"role":"glue","program":1}}}'),
    ],
    ['a role that is a number', body('{"capabilities":{"sriov_hotplug":{"version":1,"role":1}}}')],
    ['sriov_status as a number', body('{"capabilities":{"sriov_status":1}}')],
  ];
  it.each(malformed)('answers %s with EINVAL', (_, bytes) => {
    expect(() => parseVersion(bytes)).toThrow(WireError);
  });

  it('names the key, its value and what it must be', () => {
    expect(() => parseVersion(body('{"capabilities":{"max_msg_fds":"8"}}'))).toThrow(
      'max_msg_fds is "8": it must be a whole number of at least 0',
    );
  });
});
