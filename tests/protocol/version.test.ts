// VERSION over a socket and in process: what is negotiated, what is never sent unasked, and every malformed proposal.

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Errno } from '../../protocol/errno.ts';
import { HotplugCommand } from '../../protocol/hotplug/commands.ts';
import { Command } from '../../protocol/vfio-user/commands.ts';
import { DeviceInfo, VersionPrefix } from '../../protocol/vfio-user/messages.ts';
import { encodeVersion, parseVersion } from '../../protocol/vfio-user/version.ts';
import { expectErrno } from './backend.ts';
import type { TestBackend } from './test-backend.ts';
import { TRANSPORTS } from './transports.ts';

/** What QEMU 11.1 proposes. */
const QEMU_CAPABILITIES = {
  max_msg_fds: 8,
  max_data_xfer_size: 1048576,
  pgsizes: 4096,
  max_dma_maps: 65535,
  migration: { pgsize: 4096, max_bitmap_size: 268435456 },
  write_multiple: true,
};

const GET_INFO = DeviceInfo.encode({ argsz: DeviceInfo.size, flags: 0, numRegions: 0, numIrqs: 0 });

function versionBody(json: string, major = 0, minor = 1): Uint8Array {
  const text = new TextEncoder().encode(json);
  const body = new Uint8Array(VersionPrefix.size + text.length);
  VersionPrefix.encode({ major, minor }, body);
  body.set(text, VersionPrefix.size);
  return body;
}

describe.each(TRANSPORTS)('VERSION over $way', ({ start }) => {
  let backend: TestBackend;
  beforeAll(async () => {
    backend = await start();
  });
  afterEach(() => backend.disconnect());
  afterAll(() => backend.stop());

  async function answerTo(body: Uint8Array) {
    const peer = backend.raw();
    peer.send(Command.version, body);
    return peer.next();
  }

  it.each([
    [0, 0],
    [1, 1],
    [2, 1],
    [65535, 1],
  ])('answers a proposal of 0.%i with 0.%i', async (proposed, answered) => {
    const { body, error } = await answerTo(encodeVersion(0, proposed, {}));
    expect(error).toBe(0);
    expect(parseVersion(body)).toMatchObject({ major: 0, minor: answered });
  });

  it('answers a proposal without JSON', async () => {
    const { body, error } = await answerTo(encodeVersion(0, 1, undefined));
    expect(error).toBe(0);
    expect(parseVersion(body).major).toBe(0);
  });

  it('answers QEMU with keys it proposed and no more bytes than it sent', async () => {
    const request = encodeVersion(0, 0, QEMU_CAPABILITIES);
    const { body } = await answerTo(request);
    const keys = Object.keys(parseVersion(body).capabilities ?? {});
    expect(body.length).toBeLessThanOrEqual(request.length);
    expect(Object.keys(QEMU_CAPABILITIES)).toEqual(expect.arrayContaining(keys));
  });

  it('announces no limit to QEMU that QEMU refuses', async () => {
    const { body } = await answerTo(encodeVersion(0, 0, QEMU_CAPABILITIES));
    const capabilities = parseVersion(body).capabilities ?? {};
    expect(capabilities.max_msg_fds).toBeLessThanOrEqual(16);
    expect(capabilities.max_data_xfer_size).toBeLessThanOrEqual(64 * 1024 * 1024);
    expect(capabilities.max_dma_maps).toBeLessThanOrEqual(65535);
  });

  it('answers Cloud Hypervisor with a capabilities object', async () => {
    const { body } = await answerTo(
      encodeVersion(0, 1, {
        max_msg_fds: 1,
        max_data_xfer_size: 1048576,
        migration: { pgsize: 4096 },
      }),
    );
    expect(parseVersion(body).capabilities).toBeDefined();
  });

  it('never shows the extension to a client that did not ask for it', async () => {
    const { body } = await answerTo(encodeVersion(0, 0, QEMU_CAPABILITIES));
    expect(new TextDecoder().decode(body)).not.toContain('sriov');
  });

  it('grants hot-plug to a client that asks for it', async () => {
    const client = await backend.connect({
      capabilities: { sriov_hotplug: { version: 1, role: 'vmm' } },
    });
    expect(client.agreed.hotplug).toEqual({ version: 1, role: 'vmm' });
  });

  it('does not grant hot-plug in a role that it does not know', async () => {
    const client = await backend.connect({
      capabilities: { sriov_hotplug: { version: 1, role: 'spectator' } },
    });
    expect(client.hasHotplug).toBe(false);
  });

  it('answers 1 to a client that proposes version 7 of hot-plug', async () => {
    const client = await backend.connect({
      capabilities: { sriov_hotplug: { version: 7, role: 'vmm' } },
    });
    expect(client.agreed.hotplug?.version).toBe(1);
  });

  it('takes a proposal that ends without a NUL', async () => {
    const { error } = await answerTo(versionBody('{"capabilities":{"max_msg_fds":4}}'));
    expect(error).toBe(0);
  });

  it('takes unknown capabilities', async () => {
    const { error } = await answerTo(versionBody('{"capabilities":{"x":{"y":[1]}},"z":2}\0'));
    expect(error).toBe(0);
  });

  it.each<[string, Uint8Array]>([
    ['an empty body', new Uint8Array(0)],
    ['a body of 3 bytes', new Uint8Array(3)],
    ['JSON cut in the middle', versionBody('{"capabilities":{"max_msg\0')],
    ['JSON that is a number', versionBody('7\0')],
    ['JSON that is null', versionBody('null\0')],
    ['capabilities that are a list', versionBody('{"capabilities":[]}\0')],
    ['max_msg_fds as text', versionBody('{"capabilities":{"max_msg_fds":"8"}}\0')],
    ['max_msg_fds below zero', versionBody('{"capabilities":{"max_msg_fds":-1}}\0')],
    ['max_data_xfer_size 0', versionBody('{"capabilities":{"max_data_xfer_size":0}}\0')],
    ['max_dma_maps as a fraction', versionBody('{"capabilities":{"max_dma_maps":1.5}}\0')],
    ['pgsizes without a common page size', versionBody('{"capabilities":{"pgsizes":1}}\0')],
    ['write_multiple as a number', versionBody('{"capabilities":{"write_multiple":1}}\0')],
    ['twin_socket as true', versionBody('{"capabilities":{"twin_socket":true}}\0')],
    ['sriov_hotplug as true', versionBody('{"capabilities":{"sriov_hotplug":true}}\0')],
    ['sriov_hotplug without a version', versionBody('{"capabilities":{"sriov_hotplug":{}}}\0')],
    ['text that is no UTF-8', Uint8Array.of(0, 0, 1, 0, 0x7b, 0xff, 0xfe, 0x7d, 0)],
    ['JSON nested 4,000 deep', versionBody(`${'['.repeat(4000)}\0`)],
    ['JSON nested 20,000 deep', versionBody(`${'['.repeat(20_000)}\0`)],
    ['a body of 4097 bytes', versionBody(`{"x":"${'x'.repeat(4097 - 4 - 8)}"}`)],
  ])('answers %s with EINVAL', async (_, body) => {
    expect((await answerTo(body)).error).toBe(Errno.EINVAL);
  });

  it('answers another major version with ENOTSUP', async () => {
    expect((await answerTo(encodeVersion(1, 0, {}))).error).toBe(Errno.ENOTSUP);
  });

  it('answers a second VERSION with EPERM and goes on serving the connection', async () => {
    const client = await backend.connect();
    await expectErrno(client.call(Command.version, encodeVersion(0, 1, {})), 'EPERM');
    await client.deviceInfo();
  });

  it('answers a client that negotiates hot-plug twice with EPERM and keeps the first agreement', async () => {
    const capabilities = { sriov_hotplug: { version: 1, role: 'vmm' } };
    const client = await backend.connect({ capabilities });
    await expectErrno(client.call(Command.version, encodeVersion(0, 1, capabilities)), 'EPERM');
    await client.deviceInfo();
  });

  it('answers a command before VERSION with EINVAL, and VERSION still works then', async () => {
    const peer = backend.raw();
    peer.send(Command.deviceGetInfo, GET_INFO);
    expect((await peer.next()).error).toBe(Errno.EINVAL);
    await peer.negotiate();
  });

  it('answers getStatus with EPERM to a client that did not negotiate it', async () => {
    const client = await backend.connect();
    await expectErrno(client.call(HotplugCommand.getStatus), 'EPERM');
  });
});
