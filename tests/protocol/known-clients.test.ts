// What stock VMMs send, message by message, and the limits of what they take back. Sources: QEMU 11.1 hw/vfio-user and
// the rust-vmm vfio-user crate of Cloud Hypervisor.

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { closeFd } from '../../protocol/unix/libc.ts';
import { Command, IrqIndex, RegionIndex } from '../../protocol/vfio-user/commands.ts';
import {
  DeviceInfo,
  DeviceInfoFlag,
  DmaFlag,
  DmaMap,
  DmaUnmap,
  HeaderFlag,
  IrqInfo,
  IrqSet,
  IrqSetFlag,
  RegionAccess,
  RegionFlag,
  RegionInfo,
  UnmapFlag,
} from '../../protocol/vfio-user/messages.ts';
import { encodeVersion, parseVersion } from '../../protocol/vfio-user/version.ts';
import { Interrupt } from '../../vmm-glue/client/interrupts.ts';
import { GuestMemory } from '../../vmm-glue/client/memory.ts';
import { Backend } from './backend.ts';
import type { RawPeer, ReceivedFrame } from './raw-peer.ts';

const PAGE = 4096n;

let backend: Backend;
let memory: GuestMemory;
beforeAll(async () => {
  backend = await Backend.start();
  memory = new GuestMemory(Number(16n * PAGE));
});
afterEach(() => backend.disconnect());
afterAll(async () => {
  memory.close();
  await backend.stop();
});

/** Sends a command and gives its reply, which must be no error. */
async function ask(
  peer: RawPeer,
  command: number,
  body: Uint8Array,
  fds: readonly number[] = [],
): Promise<ReceivedFrame> {
  peer.send(command, body, { fds });
  const reply = await peer.next();
  expect(reply).toMatchObject({ command, error: 0 });
  return reply;
}

/** The same; QEMU reads the reply into the request's buffer, so it must not be longer. */
async function askAsQemu(
  peer: RawPeer,
  command: number,
  body: Uint8Array,
  fds: readonly number[] = [],
): Promise<Uint8Array> {
  const reply = await ask(peer, command, body, fds);
  expect(reply.body.length).toBeLessThanOrEqual(body.length);
  return reply.body;
}

function mapOf(page: bigint): Uint8Array {
  const flags = DmaFlag.read | DmaFlag.write;
  const address = page * PAGE;
  return DmaMap.encode({ argsz: 32, flags, offset: address, address, size: PAGE });
}

function regionInfoOf(index: number, argsz: number): Uint8Array {
  return RegionInfo.encode({ argsz, flags: 0, index, capOffset: 0, size: 0n, offset: 0n });
}

function irqSet(index: number, start: number, count: number, flags: number): Uint8Array {
  return IrqSet.encode({ argsz: IrqSet.size, flags, index, start, count });
}

/** `minor`: 0 in QEMU 11.1. */
async function attachAsQemu(peer: RawPeer, minor = 0): Promise<void> {
  const capabilities = {
    max_msg_fds: 8,
    max_data_xfer_size: 1048576,
    migration: { pgsize: 4096, max_bitmap_size: 268435456 },
    pgsizes: 4096,
    max_dma_maps: 65535,
    write_multiple: true,
  };
  const version = await askAsQemu(peer, Command.version, encodeVersion(0, minor, capabilities));
  expect(parseVersion(version)).toMatchObject({ major: 0, minor });
}

/** Sends many commands in a row, and only then waits for the reply of each. */
async function pipeline(
  peer: RawPeer,
  command: number,
  bodies: readonly Uint8Array[],
  fds: readonly number[],
): Promise<void> {
  bodies.forEach((body, index) => {
    peer.send(command, body, { id: index + 1, fds });
  });
  for (const index of bodies.keys()) {
    expect(await peer.next()).toMatchObject({ id: index + 1, command, error: 0 });
  }
}

/** The first word of extended config space. */
async function firstExtendedCapability(peer: RawPeer): Promise<number> {
  const first = RegionAccess.encode({ offset: 0x100n, region: RegionIndex.config, count: 4 });
  const { body } = await ask(peer, Command.regionRead, first);
  return new DataView(body.buffer, body.byteOffset).getUint32(16, true);
}

describe('QEMU 11.1', () => {
  it('attaches: every reply fits the buffer of its request', async () => {
    const peer = backend.raw();
    await attachAsQemu(peer);
    const pages = [0n, 1n, 2n, 3n, 4n, 5n, 6n, 7n];
    await pipeline(peer, Command.dmaMap, pages.map(mapOf), [memory.fd]);
    // ROM and the like have no fd, and must succeed all the same.
    await askAsQemu(peer, Command.dmaMap, mapOf(100n));
    const info = DeviceInfo.encode({ argsz: 16, flags: 0, numRegions: 0, numIrqs: 0 });
    expect(await askAsQemu(peer, Command.deviceGetInfo, info)).toHaveLength(16);
    for (const index of [0, 1, 2, 3, 4, 5, RegionIndex.config]) {
      const short = await ask(peer, Command.deviceGetRegionInfo, regionInfoOf(index, 32));
      const { argsz, flags, capOffset } = RegionInfo.decode(short.body);
      expect([flags & RegionFlag.caps, capOffset]).toEqual([0, 0]);
      const whole = await ask(peer, Command.deviceGetRegionInfo, regionInfoOf(index, argsz));
      expect(whole.body).toHaveLength(argsz);
      expect(short.fds.length + whole.fds.length).toBeLessThanOrEqual(1);
      [...short.fds, ...whole.fds].forEach(closeFd);
    }
    for (const index of [IrqIndex.intx, IrqIndex.msi, IrqIndex.msix, IrqIndex.err]) {
      const request = IrqInfo.encode({ argsz: 16, flags: 0, index, count: 0 });
      expect(await askAsQemu(peer, Command.deviceGetIrqInfo, request)).toHaveLength(16);
    }
    const whole = RegionAccess.encode({ offset: 0n, region: RegionIndex.config, count: 4096 });
    const config = await ask(peer, Command.regionRead, whole);
    expect(config.body).toHaveLength(16 + 4096);
    expect(await askAsQemu(peer, Command.deviceReset, new Uint8Array(0))).toHaveLength(0);
  });

  it('enables MSI-X with an empty binding first, then binds one vector after the other', async () => {
    const peer = backend.raw();
    await attachAsQemu(peer);
    const bind = IrqSetFlag.dataEventFd | IrqSetFlag.actionTrigger;
    const disable = IrqSetFlag.dataNone | IrqSetFlag.actionTrigger;
    const line = new Interrupt();
    await askAsQemu(peer, Command.deviceSetIrqs, irqSet(IrqIndex.msix, 0, 1, bind));
    for (let vector = 0; vector < 8; vector += 1) {
      const body = irqSet(IrqIndex.msix, vector, 1, bind);
      await askAsQemu(peer, Command.deviceSetIrqs, body, [line.fd]);
    }
    await askAsQemu(peer, Command.deviceSetIrqs, irqSet(IrqIndex.msix, 0, 0, disable));
    // It disables what it never enabled, too.
    await askAsQemu(peer, Command.deviceSetIrqs, irqSet(IrqIndex.intx, 0, 0, disable));
    line.close();
  });

  it.each([0, 1])(
    'finds no SR-IOV while it attaches, even as 0.%i, so that it drops none',
    async (minor) => {
      const peer = backend.raw();
      await attachAsQemu(peer, minor);
      expect(await firstExtendedCapability(peer)).toBe(0);
      await askAsQemu(peer, Command.deviceReset, new Uint8Array(0));
      expect(await firstExtendedCapability(peer)).not.toBe(0);
    },
  );

  it('posts maps and writes inside a memory transaction, and gets one answer for what follows', async () => {
    const peer = backend.raw();
    await attachAsQemu(peer);
    for (let page = 0n; page < 8n; page += 1n) {
      peer.send(Command.dmaMap, mapOf(page), { fds: [memory.fd], flags: HeaderFlag.noReply });
    }
    const all = DmaUnmap.encode({ argsz: 24, flags: UnmapFlag.all, address: 0n, size: 0n });
    await askAsQemu(peer, Command.dmaUnmap, all);
    expect(peer.waiting).toBe(0);
  });

  it('sends nothing that the backend answers with an extension of its own', async () => {
    const peer = backend.raw();
    await attachAsQemu(peer);
    await askAsQemu(peer, Command.deviceReset, new Uint8Array(0));
    const body = new Uint8Array(18);
    RegionAccess.encode({ offset: 0x118n, region: RegionIndex.config, count: 2 }, body);
    body[16] = 0x9;
    await askAsQemu(peer, Command.regionWrite, body);
    await askAsQemu(peer, Command.deviceReset, new Uint8Array(0));
    expect(peer.waiting).toBe(0);
  });
});

describe('Cloud Hypervisor', () => {
  it('attaches: each reply has exactly the size that it reads', async () => {
    const peer = backend.raw();
    const capabilities = {
      max_msg_fds: 1,
      max_data_xfer_size: 1048576,
      migration: { pgsize: 4096 },
    };
    const version = await ask(peer, Command.version, encodeVersion(0, 1, capabilities));
    expect(parseVersion(version.body).capabilities).toBeDefined();
    // Its argsz counts the header.
    const info = DeviceInfo.encode({ argsz: 32, flags: 0, numRegions: 0, numIrqs: 0 });
    const { body } = await ask(peer, Command.deviceGetInfo, info);
    expect(body).toHaveLength(16);
    for (let index = 0; index < DeviceInfo.decode(body).numRegions; index += 1) {
      const first = await ask(peer, Command.deviceGetRegionInfo, regionInfoOf(index, 32));
      const { argsz } = RegionInfo.decode(first.body);
      first.fds.forEach(closeFd);
      if (argsz > RegionInfo.size) {
        const second = await ask(peer, Command.deviceGetRegionInfo, regionInfoOf(index, argsz));
        expect(second.body).toHaveLength(argsz);
        second.fds.forEach(closeFd);
      }
    }
    // It resets devices only that do not say that they can be reset: ours says so, and extended space is there at once.
    expect(DeviceInfo.decode(body).flags & DeviceInfoFlag.reset).not.toBe(0);
    expect(await firstExtendedCapability(peer)).not.toBe(0);
  });
});
