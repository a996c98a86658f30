// DEVICE_RESET over the real socket: what it clears and what it leaves.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Command, IrqIndex, RegionIndex } from '../../protocol/vfio-user/commands.ts';
import type { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { Interrupt } from '../../vmm-glue/client/interrupts.ts';
import { GuestMemory } from '../../vmm-glue/client/memory.ts';
import { findCapabilities } from '../../vmm-glue/reference-vmm/capabilities.ts';
import { ClientConfig } from '../../vmm-glue/reference-vmm/config-access.ts';
import {
  CapabilityId,
  ExtendedCapabilityId,
  Header,
  Sriov,
  SriovBit,
} from '../../vmm-glue/reference-vmm/pci-offsets.ts';
import { Backend } from './backend.ts';
import { copy, DmaStatus, ring, turnOn } from './loopback-device.ts';

const PAGE = 4096;

let backend: Backend;
let client: VfioUserClient;
let config: ClientConfig;
beforeAll(async () => {
  backend = await Backend.start();
});
beforeEach(async () => {
  client = await backend.connect();
  config = new ClientConfig(client);
  await client.reset();
});
afterEach(() => backend.disconnect());
afterAll(() => backend.stop());

async function sriovBase(): Promise<number> {
  const { extended } = await findCapabilities(config);
  return extended.get(ExtendedCapabilityId.sriov) ?? 0;
}

describe('DEVICE_RESET', () => {
  it('clears Command and the BARs', async () => {
    await config.write(Header.command, 2, 0x6);
    await config.write(Header.bar0, 4, 0xc000_0000);
    await client.reset();
    expect((await config.read(Header.command, 2)) & 0x6).toBe(0);
    expect(await config.read(Header.bar0, 4)).toBe(0xc);
  });

  it('clears MSI-X Enable', async () => {
    const { standard } = await findCapabilities(config);
    const control = (standard.get(CapabilityId.msix) ?? 0) + 2;
    await config.write(control, 2, 0x8000);
    await client.reset();
    expect((await config.read(control, 2)) & 0x8000).toBe(0);
  });

  it('brings SR-IOV to its reset state', async () => {
    const base = await sriovBase();
    await config.write(base + Sriov.control, 2, SriovBit.ariCapableHierarchy);
    await config.write(base + Sriov.numVfs, 2, 3);
    await config.write(base + Sriov.systemPageSize, 4, 0x10);
    await config.write(base + Sriov.vfBar0, 4, 0xd000_0000);
    await client.reset();
    expect(await config.read(base + Sriov.control, 2)).toBe(0);
    expect(await config.read(base + Sriov.numVfs, 2)).toBe(0);
    expect(await config.read(base + Sriov.systemPageSize, 4)).toBe(1);
    expect(await config.read(base + Sriov.vfBar0, 4)).toBe(0xc);
  });

  it('leaves the client’s eventfds bound', async () => {
    const line = new Interrupt();
    await client.bindInterrupts(IrqIndex.msix, 0, [line]);
    await client.reset();
    await turnOn(client);
    await ring(client, 0);
    expect(await line.next()).toBe(1n);
    line.close();
  });

  it('leaves the client’s memory mapped', async () => {
    const memory = new GuestMemory(PAGE);
    await client.mapDma({ address: 0n, size: BigInt(PAGE), fd: memory.fd });
    await client.reset();
    await turnOn(client);
    expect(await copy(client, 0n, 64n, 8)).toBe(DmaStatus.done);
    memory.close();
  });

  it('is answered with an empty body, however often it comes', async () => {
    for (let i = 0; i < 5; i += 1) {
      const { body } = await client.call(Command.deviceReset);
      expect(body.length).toBe(0);
    }
  });

  it('is carried out in order with what is pipelined around it', async () => {
    const write = client.writeRegion(RegionIndex.config, Header.command, Uint8Array.of(6, 0));
    const reset = client.reset();
    const read = config.read(Header.command, 2);
    await Promise.all([write, reset]);
    expect((await read) & 0x6).toBe(0);
  });
});
