// The reference VMM's guest against a recording of Linux 6.12 on QEMU's igb: the same accesses to the SR-IOV
// capability, of the same registers, with the same values, in the same order.

import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type {
  AccessLength,
  ConfigAccess,
} from '../../../../vmm-glue/reference-vmm/config-access.ts';
import { SriovCapability } from '../../../../vmm-glue/reference-vmm/sriov-capability.ts';

const BASE = 0x160;

/** Register name in the recording to its offset and length. */
const REGISTERS: Record<string, { offset: number; length: AccessLength }> = {
  capabilities: { offset: 0x04, length: 4 },
  control: { offset: 0x08, length: 2 },
  initialVfs: { offset: 0x0c, length: 2 },
  totalVfs: { offset: 0x0e, length: 2 },
  numVfs: { offset: 0x10, length: 2 },
  functionDependencyLink: { offset: 0x12, length: 1 },
  firstVfOffset: { offset: 0x14, length: 2 },
  vfStride: { offset: 0x16, length: 2 },
  vfDeviceId: { offset: 0x1a, length: 2 },
  supportedPageSizes: { offset: 0x1c, length: 4 },
  systemPageSize: { offset: 0x20, length: 4 },
  vfBar0: { offset: 0x24, length: 4 },
  vfBar1: { offset: 0x28, length: 4 },
  vfBar2: { offset: 0x2c, length: 4 },
  vfBar3: { offset: 0x30, length: 4 },
  vfBar4: { offset: 0x34, length: 4 },
  vfBar5: { offset: 0x38, length: 4 },
};

/** `read control 0x0` and `write control 0x10` lines; comments and the reset in between are left out. */
const FIXTURE = new URL('../../../fixtures/linux-6.12-sriov-accesses.txt', import.meta.url);
const recording = readFileSync(FIXTURE, 'utf8')
  .split('\n')
  .filter((line) => /^(read|write) /.test(line));

/** Answers reads from the recording and notes what was done in the recording's own words. */
class Replay implements ConfigAccess {
  readonly done: string[] = [];
  readonly #source: readonly string[];

  constructor(source: readonly string[]) {
    this.#source = source;
  }

  async read(offset: number, length: AccessLength): Promise<number> {
    const expected = this.#source[this.done.length] ?? '';
    const value = Number(expected.split(' ')[2] ?? 0);
    this.done.push(`read ${nameOf(offset, length)} 0x${value.toString(16)}`);
    return value;
  }

  async write(offset: number, length: AccessLength, value: number): Promise<void> {
    this.done.push(`write ${nameOf(offset, length)} 0x${value.toString(16)}`);
  }
}

function nameOf(offset: number, length: AccessLength): string {
  const found = Object.entries(REGISTERS).find(
    ([, register]) => register.offset === offset - BASE && register.length === length,
  );
  return found?.[0] ?? `${length} bytes at 0x${(offset - BASE).toString(16)}`;
}

/** Linux put igb's two VF BARs here. */
const ADDRESSES = new Map([
  [0, 0xfe00_0000n],
  [3, 0xfe02_0000n],
]);

describe('the reference guest on the SR-IOV capability', () => {
  const bootEnd =
    recording.lastIndexOf('write vfBar4 0x0', recording.indexOf('read initialVfs 0x8')) + 1;
  const firstDisable = recording.indexOf('write control 0x10', bootEnd);
  const resetStart = recording.lastIndexOf('read control 0x0');

  async function guestUpTo(end: number): Promise<{ replay: Replay; guest: SriovCapability }> {
    const replay = new Replay(recording.slice(0, end));
    const guest = new SriovCapability(replay, BASE, { ari: true, wait: async () => {} });
    await guest.initialize();
    await guest.placeVfBars((bar) => ADDRESSES.get(bar.index) ?? 0n);
    return { replay, guest };
  }

  it('makes the accesses of a booting Linux in its order', async () => {
    const { replay } = await guestUpTo(bootEnd);
    expect(replay.done).toEqual(recording.slice(0, bootEnd));
  });

  it('sizes and places igb as Linux does', async () => {
    const { guest } = await guestUpTo(bootEnd);
    expect(guest.totalVfs).toBe(8);
    expect(guest.vfDeviceId).toBe(0x10ca);
    expect(guest.placedBars).toEqual([
      expect.objectContaining({ index: 0, size: 16384n, is64Bit: true, address: 0xfe00_0000n }),
      expect.objectContaining({ index: 3, size: 16384n, is64Bit: true, address: 0xfe02_0000n }),
    ]);
  });

  it('enables 2 VFs, disables them and enables 1 with the accesses of sriov_numvfs in Linux', async () => {
    const { replay, guest } = await guestUpTo(resetStart);
    await guest.enable(2);
    expect(replay.done).toEqual(recording.slice(0, firstDisable));
    await guest.disable();
    await guest.enable(1);
    expect(replay.done).toEqual(recording.slice(0, resetStart));
  });

  it('brings its VF back after a PF reset with the accesses of a Linux restore', async () => {
    const { replay, guest } = await guestUpTo(recording.length);
    await guest.enable(2);
    await guest.disable();
    await guest.enable(1);
    await guest.restore();
    expect(replay.done).toEqual(recording);
  });

  it('waits 100 ms after VF Enable and 1 s after clearing it', async () => {
    const waits: number[] = [];
    const replay = new Replay(recording);
    const wait = async (milliseconds: number): Promise<void> => {
      waits.push(milliseconds);
    };
    const guest = new SriovCapability(replay, BASE, { ari: true, wait });
    await guest.initialize();
    await guest.placeVfBars((bar) => ADDRESSES.get(bar.index) ?? 0n);
    await guest.enable(2);
    await guest.disable();
    expect(waits).toEqual([100, 1000]);
  });
});
