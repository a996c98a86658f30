// 100,000 messages with random mutations, on real sockets: the backend goes on serving and does not grow.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Command } from '../../protocol/vfio-user/commands.ts';
import { encodeFrame } from '../../protocol/vfio-user/framing.ts';
import {
  DeviceFeature,
  DeviceInfo,
  DmaMap,
  DmaUnmap,
  HeaderFlag,
  IrqInfo,
  IrqSet,
  RegionAccess,
  RegionInfo,
  RegionIoFds,
} from '../../protocol/vfio-user/messages.ts';
import { encodeVersion } from '../../protocol/vfio-user/version.ts';
import { GuestMemory } from '../../vmm-glue/client/memory.ts';
import { Backend, expectServing } from './backend.ts';
import { reachPhase } from './hotplug-guest.ts';
import type { RawPeer } from './raw-peer.ts';

const MESSAGES = 100_000;
const PER_CONNECTION = 500;
const WARM_UP = 10_000;
/** What a heap may breathe; 100,000 leaked messages or windows would be ten times that. */
const GROWTH_BYTES = 24 * 1024 * 1024;
const SEED = 0x5eed;

/** Mulberry32: small, and the same sequence every time. */
function randomSource(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

const random = randomSource(SEED);

/** Well-formed messages that mutations start from. */
const SEEDS: readonly { command: number; body: Uint8Array; takesFds: boolean }[] = [
  seed(Command.version, encodeVersion(0, 1, { max_msg_fds: 8, sriov_status: { version: 1 } })),
  seed(
    Command.dmaMap,
    DmaMap.encode({ argsz: 32, flags: 3, offset: 0n, address: 0x10000n, size: 0x4000n }),
    true,
  ),
  seed(
    Command.dmaUnmap,
    DmaUnmap.encode({ argsz: 24, flags: 0, address: 0x10000n, size: 0x4000n }),
  ),
  seed(
    Command.deviceGetInfo,
    DeviceInfo.encode({ argsz: 16, flags: 0, numRegions: 0, numIrqs: 0 }),
  ),
  seed(
    Command.deviceGetRegionInfo,
    RegionInfo.encode({ argsz: 64, flags: 0, index: 0, capOffset: 0, size: 0n, offset: 0n }),
  ),
  seed(
    Command.deviceGetRegionIoFds,
    RegionIoFds.encode({ argsz: 16, flags: 0, index: 0, count: 0 }),
  ),
  seed(Command.deviceGetIrqInfo, IrqInfo.encode({ argsz: 16, flags: 0, index: 2, count: 0 })),
  seed(
    Command.deviceSetIrqs,
    IrqSet.encode({ argsz: 20, flags: 0x24, index: 2, start: 0, count: 2 }),
    true,
  ),
  seed(Command.regionRead, RegionAccess.encode({ offset: 0n, region: 7, count: 256 })),
  seed(Command.regionRead, RegionAccess.encode({ offset: 0n, region: 0, count: 64 })),
  seed(
    Command.regionWrite,
    RegionAccess.encode({ offset: 0x110n, region: 7, count: 16 }, new Uint8Array(32)),
  ),
  seed(
    Command.regionWrite,
    RegionAccess.encode({ offset: 0x10n, region: 0, count: 4 }, new Uint8Array(20)),
  ),
  seed(Command.deviceReset, new Uint8Array(0)),
  seed(Command.regionWriteMulti, new Uint8Array(32)),
  seed(Command.deviceFeature, DeviceFeature.encode({ argsz: 16, flags: 0x10001 })),
];

function seed(command: number, body: Uint8Array, takesFds = false) {
  return { command, body, takesFds };
}

function mutate(body: Uint8Array): Uint8Array {
  const copy = body.slice();
  switch (random(5)) {
    case 0:
      return copy;
    case 1:
      return copy.subarray(0, random(copy.length + 1));
    case 2: {
      const longer = new Uint8Array(copy.length + random(64));
      longer.set(copy);
      return longer;
    }
    default:
      for (let flips = random(6); flips >= 0 && copy.length > 0; flips -= 1) {
        copy[random(copy.length)] = random(4) === 0 ? 0xff : random(256);
      }
      return copy;
  }
}

/** One message; the last of a connection has a wrong size, which may end the connection before what follows it. */
function sendOne(peer: RawPeer, memory: GuestMemory, isLast: boolean): void {
  const { command, body, takesFds } = SEEDS[random(SEEDS.length)]!;
  const mutated = mutate(body);
  const odd = random(16) === 0 ? random(0x10000) : command;
  const flags = random(8) === 0 ? random(64) : HeaderFlag.command;
  const count = takesFds ? random(3) : random(50) === 0 ? random(20) : 0;
  const fds = new Array<number>(count).fill(memory.fd);
  const frame = encodeFrame({ id: random(0x10000), command: odd, flags }, mutated);
  if (isLast) {
    frame[4 + random(4)] = random(256);
  }
  peer.sendBytes(frame, fds);
}

let backend: Backend;
beforeAll(async () => {
  backend = await Backend.start('--total-vfs=7');
});
afterAll(() => backend.stop());

describe('the backend', () => {
  it('serves on after 100,000 mutated messages, and has no more fds, mappings or memory', async () => {
    const memory = new GuestMemory(0x10000);
    const batch = async (messages: number): Promise<void> => {
      for (let sent = 0; sent < messages; sent += PER_CONNECTION) {
        const peer = backend.raw();
        peer.send(Command.version, encodeVersion(0, 1, { max_msg_fds: 16 }));
        for (let i = 1; i <= PER_CONNECTION; i += 1) {
          sendOne(peer, memory, i === PER_CONNECTION);
        }
        await peer.endByNonsense();
        peer.close();
      }
    };
    await batch(WARM_UP);
    await expectServing(backend);
    await reachPhase(backend, 'disabled');
    const before = {
      fds: await backend.quietFdCount(),
      mappings: backend.sharedMappingCount(),
      bytes: backend.residentBytes(),
    };
    await batch(MESSAGES - WARM_UP);
    await expectServing(backend);
    await reachPhase(backend, 'disabled');
    expect(await backend.quietFdCount()).toBe(before.fds);
    expect(backend.sharedMappingCount()).toBe(before.mappings);
    expect(backend.residentBytes()).toBeLessThan(before.bytes + GROWTH_BYTES);
    memory.close();
  }, 60_000);
});
