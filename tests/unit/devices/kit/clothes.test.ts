// Devices in RAM in the shape of a card: what a profile says is what is seen, and the device goes on doing what it does.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { NO_FAULTS } from '../../../../backend/device/faults.ts';
import { type DeviceFunction, PF_INDEX } from '../../../../backend/device/physical-device.ts';
import type { DeviceProfile } from '../../../../backend/devices/device-profile.ts';
import { endpointTestKind } from '../../../../backend/devices/endpoint-test/kind.ts';
import type { DeviceKind, KindOptions } from '../../../../backend/devices/kind.ts';
import { moduleKind } from '../../../../backend/devices/module/kind.ts';
import { nvmeKind } from '../../../../backend/devices/nvme/kind.ts';
import { findCapability } from '../../../../backend/pci/capability-chain.ts';
import { CapabilityId } from '../../../../backend/pci/spec/capability-ids.ts';
import { loadUint } from '../../../../protocol/little-endian.ts';
import { logInto } from '../../../../protocol/log.ts';
import { ManualClock } from '../../../fakes/manual-clock.ts';

const NVME = 'examples/profiles/qemu-nvme.json';
const IGB = 'examples/profiles/intel-82576.json';
const CARD = 'examples/my-card/my-card.ts';
/** As it is built. */
const EXAMINER = pathToFileURL(resolve('dist/backend/devices/module/examiner.js'));
const log = logInto(() => {});

let folder: string;
let closings: (() => unknown)[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'clothes-'));
});
afterEach(async () => {
  for (const close of closings.toReversed()) {
    await close();
  }
  closings = [];
  rmSync(folder, { recursive: true, force: true });
});

async function openDevice(kind: DeviceKind, options: KindOptions) {
  const device = await kind.open(options, { log, clock: new ManualClock() });
  closings.push(() => device.close());
  const open = (index: number): DeviceFunction => {
    const made = kind.openFunction({ ...device.pf, index }, {
      generation: 1,
      host: { toHost: () => {} },
      clock: new ManualClock(),
      log,
      faults: NO_FAULTS,
      wires: {
        raise: () => true,
        drive: () => {},
        readMemory: () => true,
        writeMemory: () => true,
      },
    } as unknown as Parameters<DeviceKind['openFunction']>[1]);
    closings.push(() => made.close());
    return made;
  };
  return { description: device.description, open };
}

function read32(fn: DeviceFunction, bar: number, offset: number): number {
  const bytes = new Uint8Array(4);
  fn.readRegion(bar, offset, bytes);
  return loadUint(bytes, 0, 4);
}

/** A profile's JSON, where it is changed here. */
interface Profile {
  readonly card: {
    readonly pf: {
      config: string;
      readonly bars: { index: number; kind: string; size: number }[];
      readonly regions: { size: number }[];
    };
    readonly vfBars: { size: number }[];
  };
}

/** A profile like the NVMe's, changed. */
function changed(change: (profile: Profile) => void): string {
  const profile = JSON.parse(readFileSync(NVME, 'utf8'));
  change(profile);
  const path = join(folder, 'card.json');
  writeFileSync(path, JSON.stringify(profile));
  return path;
}

/** Its PF's config space, with 32 bits changed `at` bytes into a capability. */
function withCapability(profile: Profile, id: number, at: number, value: number): void {
  const config = Buffer.from(profile.card.pf.config, 'hex');
  config.writeUInt32LE(value, findCapability(config, id)!.offset + at);
  profile.card.pf.config = config.toString('hex');
}

describe('an NVMe in the shape of a card', () => {
  it('is described as the card: IDs, capabilities, BARs, vectors, VFs', async () => {
    const { description } = await openDevice(nvmeKind, { profile: NVME });
    const profile = JSON.parse(readFileSync(NVME, 'utf8')) as DeviceProfile;
    const card = Buffer.from(profile.card!.pf.config as unknown as string, 'hex');
    // The interrupt pin alone is the device's: it drives none.
    card[0x3d] = 0;
    expect(Buffer.from(description.pf.config).equals(card)).toBe(true);
    expect(description.pf.bars).toEqual(profile.card!.pf.bars);
    expect(description.vfBars).toEqual(profile.card!.vfBars);
    expect(description.pf.irqs.map(({ count }) => count)).toEqual([0, 0, 10, 1, 1]);
    expect(description.vf.irqs.map(({ count }) => count)).toEqual([0, 0, 1, 1, 1]);
    expect(description.totalVfs).toBe(7);
  });

  it('is an NVMe controller all the same, which its registers show', async () => {
    const { open } = await openDevice(nvmeKind, { profile: NVME });
    for (const index of [PF_INDEX, 0]) {
      expect(read32(open(index), 0, 8)).toBe(0x0001_0400);
    }
  });

  it('its config space is written by the rules of the standard, and a reset brings it back', async () => {
    const { open } = await openDevice(nvmeKind, { profile: NVME });
    const pf = open(PF_INDEX);
    expect(pf.readConfig(0, 4)).toBe(0x0010_1b36);
    pf.writeConfig(0, 4, 0);
    pf.writeConfig(4, 2, 0xffff);
    pf.writeConfig(0x10, 4, 0xffff_ffff);
    expect(pf.readConfig(0, 4)).toBe(0x0010_1b36);
    expect(pf.readConfig(4, 2) & 0x6).toBe(0x6);
    expect(pf.readConfig(0x10, 4)).toBe(0xffff_c004);
    pf.reset(() => {});
    expect(pf.readConfig(4, 2)).toBe(0);
    expect(pf.readConfig(0x10, 4)).toBe(4);
  });

  it('a power state that the card does not have is not taken', async () => {
    const { open, description } = await openDevice(nvmeKind, { profile: NVME });
    const pf = open(PF_INDEX);
    const control = findCapability(description.pf.config, CapabilityId.powerManagement)!.offset + 4;
    pf.writeConfig(control, 2, 1);
    expect(pf.readConfig(control, 2) & 3).toBe(0);
    pf.writeConfig(control, 2, 3);
    expect(pf.readConfig(control, 2) & 3).toBe(3);
  });

  it('a VF’s BARs are the PF’s affair', async () => {
    const { open } = await openDevice(nvmeKind, { profile: NVME });
    const vf = open(0);
    vf.writeConfig(0x10, 4, 0xffff_ffff);
    expect(vf.readConfig(0x10, 4)).toBe(0);
  });

  it('has fewer VFs where fewer are wanted, and never more than the card', async () => {
    const fewer = await openDevice(nvmeKind, { profile: NVME, totalVfs: 3 });
    expect(fewer.description.totalVfs).toBe(3);
    const more = await openDevice(nvmeKind, { profile: NVME, totalVfs: 30 });
    expect(more.description.totalVfs).toBe(7);
  });
});

describe('other devices in the shape of a card', () => {
  it('a test endpoint has its registers in BAR 0, and memory where the card has BARs', async () => {
    const { open, description } = await openDevice(endpointTestKind, { profile: IGB });
    const pf = open(PF_INDEX);
    expect(pf.readConfig(0, 4)).toBe(0x10c9_8086);
    // Capabilities of the endpoint: what its driver asks first.
    expect(read32(pf, 0, 0x30)).not.toBe(0);
    pf.writeRegion(1, 0x1_0000, Uint8Array.of(1, 2, 3, 4));
    expect(read32(pf, 1, 0x1_0000)).toBe(0x0403_0201);
    expect(description.pf.regions[1]!.mappable).toEqual([{ offset: 0, size: 0x2_0000 }]);
    expect(description.pf.regions[3]!.mappable).toEqual([]);
  });

  it('it goes on driving its pin, which the card’s config space shows', async () => {
    const { open, description } = await openDevice(endpointTestKind, { profile: IGB });
    expect(description.pf.config[0x3d]).toBe(1);
    const pf = open(PF_INDEX);
    // Type INTx, then the command that raises it: Interrupt Status of config space follows.
    pf.writeRegion(0, 0x24, Uint8Array.of(0, 0, 0, 0));
    pf.writeRegion(0, 0x04, Uint8Array.of(1, 0, 0, 0));
    expect(pf.readConfig(6, 2) & 0x8).toBe(0x8);
    pf.reset(() => {});
    expect(pf.readConfig(6, 2) & 0x8).toBe(0);
  });

  it('a card of one’s own is found behind the IDs of another', async () => {
    const kind = moduleKind(CARD, EXAMINER);
    await kind.load!();
    const { open } = await openDevice(kind, { profile: IGB, totalVfs: 2 });
    const vf = open(0);
    expect(read32(vf, 0, 0)).toBe(0x4452_4143);
  }, 20_000);
});

describe('a file that is no profile is refused with the line, and with what is wrong there', () => {
  it.each<[string, (text: string) => string, string]>([
    ['cut off', (text) => text.slice(0, text.indexOf('"vf"')), 'line 5: it is no profile'],
    [
      'spoiled',
      (text) => text.replace('"totalVfs": 7', '"totalVfs"; 7'),
      'line 5: it is no profile',
    ],
    ['something else', () => '[]', 'it is no profile of format 1'],
    [
      'of no VFs',
      (text) => text.replace('"totalVfs": 7', '"totalVfs": 0'),
      'line 5: totalVfs is no whole number',
    ],
    [
      'short of bytes',
      (text) => text.replace(/"config": "../, '"config": "'),
      'line 7: vf.config is not 256 or 4096 bytes',
    ],
    [
      'of a strange BAR',
      (text) => text.replace('"size": 16384', '"size": 16383'),
      'line 8: vf.bars cannot be: BAR 0 (memory64): a size of 16383 bytes is not a power of two',
    ],
  ])('%s', async (_, change, message) => {
    const profile = join(folder, 'card.json');
    writeFileSync(profile, change(readFileSync(NVME, 'utf8')));
    await expect(nvmeKind.open({ profile }, { log, clock: new ManualClock() })).rejects.toThrow(
      message,
    );
  });
});

describe('what contradicts the device is refused in a line that names it', () => {
  it.each([
    [
      'a BAR is missing',
      (profile: Profile) => {
        const { bars, regions } = profile.card.pf;
        bars[0]!.index = 2;
        [regions[0]!.size, regions[2]!.size] = [0, regions[0]!.size];
        withCapability(profile, CapabilityId.msix, 4, 0x2002);
        withCapability(profile, CapabilityId.msix, 8, 0x3002);
      },
      "nvme needs 8192 bytes of memory in BAR 0, and the card's PF has no such BAR",
    ],
    [
      'a BAR is too small',
      (profile: Profile) => {
        profile.card.vfBars[0]!.size = 4096;
      },
      "nvme needs 8192 bytes of memory in BAR 0, and the card's VF has 4096",
    ],
    [
      'a BAR is no memory',
      (profile: Profile) => {
        profile.card.pf.bars[0]!.kind = 'io';
      },
      "nvme needs 8192 bytes of memory in BAR 0, and the card's PF has I/O ports there",
    ],
    [
      'MSI-X lies over registers',
      (profile: Profile) => withCapability(profile, CapabilityId.msix, 4, 0x1000),
      "nvme needs BAR 0 from 0x1000 on for itself, and the card's PF has MSI-X at 0x1000 of it",
    ],
    [
      'MSI-X is in two BARs',
      (profile: Profile) => {
        const { bars, regions } = profile.card.pf;
        bars.push({ ...bars[0]!, index: 4 });
        regions[4]!.size = regions[0]!.size;
        withCapability(profile, CapabilityId.msix, 4, 0x2004);
      },
      "nvme needs MSI-X table and pending bits in one BAR, and the card's PF has them in two",
    ],
    [
      'there are no vectors',
      ({ card }: Profile) => {
        const config = Buffer.from(card.pf.config, 'hex');
        config[findCapability(config, CapabilityId.msix)!.offset] = 0;
        card.pf.config = config.toString('hex');
      },
      "nvme needs MSI-X or MSI, and the card's PF has neither",
    ],
  ])('%s', async (_, change, message) => {
    const profile = changed(change);
    await expect(nvmeKind.open({ profile }, { log, clock: new ManualClock() })).rejects.toThrow(
      `--profile=${profile}: ${message}`,
    );
  });
});
