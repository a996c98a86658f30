import { describe, expect, it } from 'vitest';
import { WireError } from '../../../protocol/errno.ts';
import {
  acceptVersion,
  isCloudHypervisor,
  isOtherVersion,
  type NegotiationLimits,
  negotiate,
} from '../../../protocol/vfio-user/negotiation.ts';
import {
  type Capabilities,
  encodeVersion,
  parseVersion,
} from '../../../protocol/vfio-user/version.ts';

const limits: NegotiationLimits = {
  maxMsgFds: 16,
  maxDataXferSize: 1024 * 1024,
  maxDmaMaps: 65535,
  pageSizes: 4096,
  writeMultiple: false,
  hotplug: true,
  status: true,
};

/** What QEMU 11.1 proposes. */
const qemu = {
  max_msg_fds: 8,
  max_data_xfer_size: 1048576,
  max_dma_maps: 65535,
  pgsizes: 4096,
  migration: { pgsize: 4096, max_bitmap_size: 268435456 },
  write_multiple: true,
};

const body = (text: string) => new Uint8Array(Buffer.from(`\0\0\0\0${text}`));
const propose = (capabilities: Capabilities | undefined, minor = 0, major = 0) =>
  parseVersion(encodeVersion(major, minor, capabilities));
const answer = (capabilities: Capabilities | undefined, own: Partial<NegotiationLimits> = {}) =>
  parseVersion(negotiate(propose(capabilities), { ...limits, ...own }).reply);

describe('quirk 1: QEMU proposes 0.0 and refuses a higher minor', () => {
  it('is answered 0.0', () => {
    expect(answer(qemu)).toMatchObject({ major: 0, minor: 0 });
  });

  it('and other minors with the lower of theirs and ours', () => {
    const minorFor = (minor: number) => parseVersion(negotiate(propose({}, minor), limits).reply);
    expect(minorFor(1).minor).toBe(1);
    expect(minorFor(9).minor).toBe(1);
  });

  it('another major version is refused with ENOTSUP', () => {
    expect(() => negotiate(propose({}, 0, 1), limits)).toThrow('only major version 0');
    expect(() => negotiate(propose({}, 0, 1), limits)).toThrow(WireError);
  });
});

describe("quirk 2: QEMU reads the reply into its request's buffer", () => {
  it('so the reply to what QEMU proposes is no longer than the request', () => {
    const request = encodeVersion(0, 0, qemu);
    const { reply } = negotiate(parseVersion(request), limits);
    expect(reply.length).toBeLessThanOrEqual(request.length);
  });

  it('keys are left out, the least important first, until it fits', () => {
    const tight = body('{"capabilities":{"max_dma_maps":6e4,"max_data_xfer_size":1e6}}');
    const { reply } = negotiate(parseVersion(tight), limits);
    expect(reply.length).toBeLessThanOrEqual(tight.length);
    expect(parseVersion(reply).capabilities).toEqual({ max_data_xfer_size: 1048576 });
  });

  it('a proposal shorter than an empty object of capabilities gets no JSON', () => {
    const { reply } = negotiate(parseVersion(body('{}')), limits);
    expect([...reply]).toEqual([0, 0, 0, 0]);
  });
});

describe('quirk 3: QEMU refuses values beyond its own limits', () => {
  it('so none is answered, whatever either side can do', () => {
    const vast = {
      max_msg_fds: 1000,
      max_data_xfer_size: 2 ** 40,
      max_dma_maps: 1_000_000,
      pgsizes: 4096 + 2048,
    };
    const own = {
      maxMsgFds: 500,
      maxDataXferSize: 2 ** 40,
      maxDmaMaps: 2 ** 20,
      pageSizes: 4096 + 2048,
    };
    expect(answer(vast, own).capabilities).toEqual({
      max_msg_fds: 16,
      max_data_xfer_size: 64 * 1024 * 1024,
      max_dma_maps: 65535,
      pgsizes: 4096,
    });
  });

  it('and values are ours: a client says what it takes itself', () => {
    const small = { ...qemu, max_msg_fds: 10, max_data_xfer_size: 1000000, max_dma_maps: 10000 };
    expect(answer(small).capabilities).toEqual({
      max_msg_fds: 16,
      max_data_xfer_size: 1048576,
      max_dma_maps: 65535,
      pgsizes: 4096,
    });
    expect(answer(qemu, { maxMsgFds: 4, maxDataXferSize: 65536 }).capabilities).toEqual({
      max_msg_fds: 4,
      max_data_xfer_size: 65536,
      max_dma_maps: 65535,
      pgsizes: 4096,
    });
  });
});

describe('only keys that were proposed are answered', () => {
  it('region_changed in the lower of the two versions', () => {
    const proposal = { max_msg_fds: 20, region_changed: { version: 7, and: 'more' } };
    expect(answer(proposal).capabilities).toMatchObject({ region_changed: { version: 1 } });
    expect(() => answer({ region_changed: true as never })).toThrow('region_changed is true');
  });

  it('one key in, at most one key out', () => {
    expect(answer({ max_msg_fds: 20 }).capabilities).toEqual({ max_msg_fds: 16 });
  });

  it('twin_socket, migration and unknown keys are never answered', () => {
    const proposed = { twin_socket: { supported: true }, migration: { pgsize: 4096 }, x_new: 1 };
    expect(answer(proposed).capabilities).toEqual({});
  });

  it('write_multiple only where it was asked for with true and is switched on', () => {
    expect(answer({ write_multiple: true }).capabilities).toEqual({});
    expect(answer({ write_multiple: true }, { writeMultiple: true }).capabilities).toEqual({
      write_multiple: true,
    });
    expect(answer({ write_multiple: false }, { writeMultiple: true }).capabilities).toEqual({});
  });
});

describe('quirk 18: Cloud Hypervisor needs a capabilities object in the reply', () => {
  it('so one is always there when JSON was proposed', () => {
    const proposed = { max_msg_fds: 1, max_data_xfer_size: 1048576, migration: { pgsize: 4096 } };
    const { reply } = negotiate(propose(proposed, 1), limits);
    expect(Buffer.from(reply.subarray(4)).toString()).toBe(
      '{"capabilities":{"max_data_xfer_size":1048576,"max_msg_fds":16}}\0',
    );
    expect(Buffer.from(negotiate(propose({}), limits).reply.subarray(4)).toString()).toBe(
      '{"capabilities":{}}\0',
    );
  });

  it('and no JSON when none was proposed', () => {
    expect([...negotiate(propose(undefined, 1), limits).reply]).toEqual([0, 0, 1, 0]);
  });
});

describe('the agreement', () => {
  it("has the standard's defaults for what was not proposed", () => {
    expect(negotiate(propose(undefined), limits).agreed).toEqual({
      major: 0,
      minor: 0,
      maxMsgFds: 1,
      maxDataXferSize: 1048576,
      maxDmaMaps: 65535,
      pageSizes: 4096,
      writeMultiple: false,
    });
  });

  it('is the same on both sides', () => {
    const proposals: Capabilities[] = [
      qemu,
      {},
      { sriov_hotplug: { version: 1, role: 'vmm' }, sriov_status: { version: 1 } },
      { max_data_xfer_size: 512, write_multiple: true, pgsizes: 0x201000 },
    ];
    for (const proposed of proposals) {
      const proposal = propose(proposed, 1);
      const { reply, agreed } = negotiate(proposal, { ...limits, writeMultiple: true });
      expect(acceptVersion(proposal, parseVersion(reply))).toEqual(agreed);
    }
  });

  it('fails when no page size is common', () => {
    expect(() => answer({ pgsizes: 0x200000 })).toThrow('no page size in common');
  });

  it('takes a 64-bit mask of page sizes', () => {
    expect(answer({ pgsizes: 0xffff_ffff_ffff_f000 }).capabilities).toEqual({ pgsizes: 4096 });
  });
});

describe('the hot-plug extension', () => {
  it('is answered without the role, with the lower version', () => {
    const proposal = propose({ sriov_hotplug: { version: 7, role: 'glue' } });
    const { reply, agreed } = negotiate(proposal, limits);
    expect(parseVersion(reply).capabilities).toEqual({ sriov_hotplug: { version: 1 } });
    expect(agreed.hotplug).toEqual({ version: 1, role: 'glue' });
  });

  it('has each side tell its name and version, where the client does', () => {
    const proposal = propose({
      sriov_hotplug: { version: 1, role: 'glue', program: 'vfio-user-sriov 0.1.9' },
    });
    const { reply, agreed } = negotiate(proposal, { ...limits, program: 'vfio-user-sriov 0.2.0' });
    expect(agreed.hotplug?.program).toBe('vfio-user-sriov 0.1.9');
    const accepted = acceptVersion(proposal, parseVersion(reply));
    expect(accepted.hotplug?.program).toBe('vfio-user-sriov 0.2.0');
  });

  it.each([
    ['another version of the same program', 'vfio-user-sriov 0.3.0', true],
    ['the same', 'vfio-user-sriov 0.2.0', false],
    ['another program', 'some-glue 0.3.0', false],
    ['nobody', undefined, false],
  ])('finds %s to be another version or not', (_what, peer, isOther) => {
    expect(isOtherVersion('vfio-user-sriov 0.2.0', peer)).toBe(isOther);
  });

  it('is not answered for a role that we do not know, nor where it is switched off', () => {
    const stranger = { sriov_hotplug: { version: 1, role: 'spectator' } };
    expect(answer(stranger).capabilities).toEqual({});
    const vmm = { sriov_hotplug: { version: 1, role: 'vmm' } };
    expect(answer(vmm, { hotplug: false }).capabilities).toEqual({});
    expect(answer({ sriov_status: { version: 1 } }, { status: false }).capabilities).toEqual({});
  });

  it('status is agreed by itself', () => {
    const { agreed } = negotiate(propose({ sriov_status: { version: 2 } }), limits);
    expect(agreed).toMatchObject({ status: { version: 1 } });
    expect(agreed.hotplug).toBeUndefined();
  });
});

describe('Cloud Hypervisor', () => {
  const proposed = { max_msg_fds: 1, max_data_xfer_size: 1048576, migration: { pgsize: 4096 } };

  it('is known by what it proposes', () => {
    expect(isCloudHypervisor(propose(proposed, 1))).toBe(true);
    const otherLimits = { ...proposed, max_data_xfer_size: 65536, migration: { pgsize: 65536 } };
    expect(isCloudHypervisor(propose(otherLimits, 1))).toBe(true);
  });

  it.each<[string, Capabilities | undefined, number]>([
    ['QEMU', qemu, 0],
    ['a QEMU that proposes minor version 1', qemu, 1],
    ['one that takes one fd a message', { ...qemu, max_msg_fds: 1 }, 1],
    ['the same with fewer keys', { ...proposed, migration: qemu.migration }, 1],
    ['a client that proposes version 0.0', proposed, 0],
    ['a client without JSON', undefined, 1],
    ['a client without capabilities', {}, 1],
  ])('is not %s', (_, capabilities, minor) => {
    expect(isCloudHypervisor(propose(capabilities, minor))).toBe(false);
  });
});

describe("accepting a server's answer", () => {
  const proposed = { major: 0, minor: 1, capabilities: { max_msg_fds: 8 } };

  it('fills in defaults for what it left out', () => {
    expect(acceptVersion(proposed, propose(undefined, 0))).toMatchObject({
      minor: 0,
      maxMsgFds: 1,
      maxDataXferSize: 1048576,
    });
  });

  it('refuses a higher minor, another major, and an extension that was not proposed, or not so new', () => {
    expect(() => acceptVersion(proposed, propose({}, 2))).toThrow('answers 0.2 to 0.1');
    expect(() => acceptVersion(proposed, propose({}, 0, 1))).toThrow(WireError);
    const unasked = propose({ sriov_hotplug: { version: 1 } });
    expect(() => acceptVersion(proposed, unasked)).toThrow('was not proposed');
    const asked = { ...proposed, capabilities: { sriov_hotplug: { version: 1, role: 'vmm' } } };
    const newer = propose({ sriov_hotplug: { version: 2 } });
    expect(() => acceptVersion(asked, newer)).toThrow('sriov_hotplug of version 2 to 1');
  });
});
