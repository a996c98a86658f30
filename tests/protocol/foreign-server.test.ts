// The client library against a vfio-user server that is not ours: the sample `server` of libvfio-user, the protocol's
// reference implementation. It is in no package registry: this runs where LIBVFIO_USER_SERVER names that program,
// built with a BAR 1 of 16 KiB (the 12 KiB that it asks for are refused by its own library).

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { connectUnix } from '../../protocol/unix/fd-socket.ts';
import { IrqIndex, RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { DeviceInfoFlag, RegionFlag } from '../../protocol/vfio-user/messages.ts';
import { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { Interrupt } from '../../vmm-glue/client/interrupts.ts';
import { GuestMemory } from '../../vmm-glue/client/memory.ts';
import { expectErrno, expectSoon } from './backend.ts';

const PROGRAM = process.env.LIBVFIO_USER_SERVER;
const PAGE = 4096;

/** The server makes its socket first and listens at it later. */
async function connected(path: string): Promise<number> {
  for (const deadline = Date.now() + 5000; ; ) {
    try {
      return connectUnix(path);
    } catch (error) {
      if (Date.now() > deadline) {
        throw error;
      }
      await sleep(5);
    }
  }
}

describe.skipIf(PROGRAM === undefined)('a client of libvfio-user’s sample server', () => {
  let folder: string;
  let server: ChildProcess;
  let client: VfioUserClient;
  let log = '';
  /** What the server reaches by messages only, page 0 of the guest. */
  const unshared = new Uint8Array(PAGE);
  let messageReads = 0;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'vfu-'));
    const path = join(folder, 'device.sock');
    server = spawn(PROGRAM ?? '', ['-v', path], { stdio: ['ignore', 'ignore', 'pipe'] });
    server.stderr?.on('data', (chunk: Buffer) => {
      log += chunk.toString();
    });
    client = await VfioUserClient.adopt(await connected(path), {
      capabilities: { sriov_hotplug: { version: 1, role: 'vmm' }, sriov_status: { version: 1 } },
      messageDma: {
        read: (address, into) => {
          messageReads++;
          into.set(unshared.subarray(Number(address), Number(address) + into.length));
          return true;
        },
        write: (address, from) => {
          unshared.set(from, Number(address));
          return true;
        },
      },
    });
  });

  afterEach(() => {
    client.close();
    server.kill();
    rmSync(folder, { recursive: true, force: true });
  });

  it('is granted no hot-plug, and the server is asked for none', async () => {
    expect(client.hasHotplug).toBe(false);
    expect(() => client.hotplugEvents()).toThrow('did not grant');
    await expect(client.getStatus()).rejects.toThrow();
    expect((await client.deviceInfo()).flags & DeviceInfoFlag.pci).toBe(DeviceInfoFlag.pci);
  });

  it('reads and writes config space', async () => {
    const ids = new DataView((await client.readRegion(RegionIndex.config, 0, 4)).buffer);
    expect([ids.getUint16(0, true), ids.getUint16(2, true)]).toEqual([0xdead, 0xbeef]);
    await client.writeRegion(RegionIndex.config, 4, Uint8Array.of(0x06, 0));
    expect([...(await client.readRegion(RegionIndex.config, 4, 2))]).toEqual([0x06, 0]);
  });

  it('maps the parts of a BAR that may be mapped, and shares them with the server', async () => {
    const { info } = await client.regionInfo(RegionIndex.bar1);
    expect(info.flags & RegionFlag.mmap).toBe(RegionFlag.mmap);
    const areas = await client.mapRegion(RegionIndex.bar1);
    expect(areas.map(({ offset, length }) => [offset, length])).toEqual([
      [0, PAGE],
      [2 * PAGE, PAGE],
    ]);
    await client.writeRegion(RegionIndex.bar1, 2 * PAGE, Uint8Array.of(1, 2, 3, 4));
    expect([...areas[1]!.bytes.subarray(0, 4)]).toEqual([1, 2, 3, 4]);
    areas[0]!.bytes.set([9, 8, 7, 6]);
    expect([...(await client.readRegion(RegionIndex.bar1, 0, 4))]).toEqual([9, 8, 7, 6]);
    for (const area of areas) {
      area.close();
    }
  });

  it('gets its interrupt, with DMA to shared memory and to memory that goes by messages', async () => {
    const memory = new GuestMemory(PAGE);
    const interrupt = new Interrupt();
    await client.mapDma({ address: 0n, size: BigInt(PAGE) });
    await client.mapDma({ address: BigInt(PAGE), size: BigInt(PAGE), fd: memory.fd });
    expect((await client.irqInfo(IrqIndex.intx)).count).toBe(1);
    await client.bindInterrupts(IrqIndex.intx, 0, [interrupt]);
    const alarm = new Uint8Array(8);
    new DataView(alarm.buffer).setBigInt64(0, BigInt(Math.floor(Date.now() / 1000) + 1), true);
    await client.writeRegion(RegionIndex.bar0, 0, alarm);
    expect(await interrupt.next()).toBe(1n);
    // The server takes no other message while it waits for one of these; its last is a read.
    await expectSoon(() => messageReads, 2);
    const letters = (at: Uint8Array): string =>
      [0, 1024, 2048, 3072].map((offset) => String.fromCharCode(at[offset]!)).join('');
    expect(letters(memory.bytes)).toBe('ABCD');
    expect(letters(unshared)).toBe('ABCD');
    await client.unmapDma(0n, BigInt(PAGE));
    await client.unmapDma(BigInt(PAGE), BigInt(PAGE));
    interrupt.close();
    memory.close();
  });

  it('hears of errors as errnos, and goes on', async () => {
    await expectErrno(client.readRegion(RegionIndex.bar0, 0, 4), 'EINVAL');
    await expectErrno(client.unmapDma(0n, BigInt(PAGE)), 'ENOENT');
    await client.reset();
    expect(log).toContain('device reset callback');
  });
});
