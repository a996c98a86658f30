import fc from 'fast-check';
import { expect, it } from 'vitest';
import { WireError } from '../../protocol/errno.ts';
import { negotiate } from '../../protocol/vfio-user/negotiation.ts';
import { encodeVersion, parseVersion } from '../../protocol/vfio-user/version.ts';

const limits = {
  maxMsgFds: 16,
  maxDataXferSize: 1048576,
  maxDmaMaps: 65535,
  pageSizes: 0x40201000,
  writeMultiple: true,
  hotplug: true,
  status: true,
};

const capabilities = fc.record(
  {
    max_msg_fds: fc.nat(1000),
    max_data_xfer_size: fc.integer({ min: 1, max: 2 ** 31 }),
    max_dma_maps: fc.nat(100_000),
    pgsizes: fc.nat(0x7fffffff).map((bits) => bits | 0x1000),
    write_multiple: fc.boolean(),
    twin_socket: fc.record({ supported: fc.boolean() }),
    sriov_hotplug: fc.record({
      version: fc.integer({ min: 1, max: 9 }),
      role: fc.constantFrom('vmm', 'glue', 'x'),
    }),
    sriov_status: fc.record({ version: fc.integer({ min: 1, max: 9 }) }),
    unknown: fc.jsonValue(),
  },
  { requiredKeys: [] },
);

it('a reply is never longer than its request and never has a key that was not proposed', () => {
  fc.assert(
    fc.property(capabilities, fc.nat(5), (proposed, minor) => {
      const request = encodeVersion(0, minor, proposed);
      const { reply, agreed } = negotiate(parseVersion(request), limits);
      expect(reply.length).toBeLessThanOrEqual(request.length);
      const answered = parseVersion(reply);
      expect(answered.minor).toBeLessThanOrEqual(minor);
      expect(Object.keys(proposed)).toEqual(
        expect.arrayContaining(Object.keys(answered.capabilities!)),
      );
      expect(agreed.maxMsgFds).toBe(answered.capabilities!.max_msg_fds ?? 1);
      expect(answered.capabilities!.max_data_xfer_size ?? limits.maxDataXferSize).toBe(1048576);
    }),
  );
});

it('arbitrary bytes as VERSION are taken or answered with a WireError', () => {
  const valid = encodeVersion(0, 1, { max_msg_fds: 8, sriov_hotplug: { version: 1, role: 'vmm' } });
  const mutation = fc.record({ at: fc.nat(valid.length - 1), byte: fc.nat(255) });
  const mutated = fc.array(mutation, { maxLength: 5 }).map((mutations) => {
    const bytes = valid.slice();
    for (const { at, byte } of mutations) {
      bytes[at] = byte;
    }
    return bytes;
  });
  fc.assert(
    fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 64 })), (bytes) => {
      try {
        const { reply } = negotiate(parseVersion(bytes), limits);
        expect(reply.length).toBeLessThanOrEqual(bytes.length);
      } catch (error) {
        expect(error).toBeInstanceOf(WireError);
      }
    }),
    { numRuns: 500 },
  );
});
