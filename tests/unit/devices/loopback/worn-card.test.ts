// A loopback in a real card's clothes: what `probe` wrote of a card is what a guest sees.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type DeviceFunction, PF_INDEX } from '../../../../backend/device/physical-device.ts';
import { encodeProfile } from '../../../../backend/devices/device-profile.ts';
import type { OpenContext } from '../../../../backend/devices/kind.ts';
import { describeDevice } from '../../../../backend/devices/kit/describe.ts';
import { loopbackKind } from '../../../../backend/devices/loopback/kind.ts';
import { declareNvme } from '../../../../backend/devices/nvme/device.ts';
import { logInto } from '../../../../protocol/log.ts';
import { ManualClock } from '../../../fakes/manual-clock.ts';

/** Any card with other IDs, BARs and capabilities than the loopback's. */
const CARD = describeDevice(
  declareNvme({
    totalVfs: 5,
    vfs: 'online',
    serialNumber: 'S1',
    uuid: new Uint8Array(16),
    namespaces: [],
  }),
);
const log = logInto(() => {});
const clock = new ManualClock();

let folder: string;
let profile: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'worn-'));
  profile = join(folder, 'card.json');
  writeFileSync(profile, encodeProfile(CARD));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

async function open(index: number): Promise<DeviceFunction> {
  const device = await loopbackKind.open({ profile }, { log, clock });
  const handle = { ...device.pf, index };
  return loopbackKind.openFunction(handle, {} as OpenContext);
}

it('is described as the card, with as many VFs as are wanted at most', async () => {
  const { description } = await loopbackKind.open({ profile, enableDelay: 30 }, { log, clock });
  expect(description).toEqual({ ...CARD, leastMakingMilliseconds: 30 });
  const fewer = await loopbackKind.open({ profile, totalVfs: 2 }, { log, clock });
  expect(fewer.description.totalVfs).toBe(2);
});

it('its config space is the card’s, written by the rules of the tables', async () => {
  const pf = await open(PF_INDEX);
  expect(pf.readConfig(0, 4)).toBe(CARD.pf.config[0]! | (CARD.pf.config[1]! << 8) | (0x10c0 << 16));
  pf.writeConfig(0, 4, 0xffff_ffff);
  pf.writeConfig(4, 2, 0xffff);
  expect(pf.readConfig(0, 2)).toBe(0x1234);
  expect(pf.readConfig(4, 2) & 0x0006).toBe(0x0006);
  pf.writeConfig(0x10, 4, 0xffff_ffff);
  expect(pf.readConfig(0x10, 4)).toBe(0xffff_c004);
  pf.reset(() => {});
  expect(pf.readConfig(4, 2) & 0x0006).toBe(0x0006);
  pf.close();
});

it('each of its functions has config space of its own', async () => {
  const { pf } = await loopbackKind.open({ profile }, { log, clock });
  const [first, second] = [0, 1].map((index) =>
    loopbackKind.openFunction({ ...pf, index }, {} as OpenContext),
  );
  const before = second!.readConfig(4, 2);
  first!.writeConfig(4, 2, before ^ 0x0004);
  expect([first!.readConfig(4, 2), second!.readConfig(4, 2)]).toEqual([before ^ 0x0004, before]);
  first!.close();
  second!.close();
});

it('its BARs keep what is written, and begin as nothing', async () => {
  const vf = await open(1);
  const bytes = new Uint8Array(4);
  vf.writeRegion(0, 0x100, Uint8Array.of(1, 2, 3, 4));
  vf.readRegion(0, 0x100, bytes);
  expect(bytes).toEqual(Uint8Array.of(1, 2, 3, 4));
  vf.readRegion(0, 0x104, bytes);
  expect(bytes).toEqual(new Uint8Array(4));
  vf.close();
});

it.each([
  [
    'lacks its PF',
    (text: string) => JSON.stringify({ ...JSON.parse(text), card: undefined }),
    'nothing of the PF',
  ],
  ['is none', () => '{}', 'it is no profile'],
])('a profile that %s is refused with its fix', async (_, damaged, message) => {
  writeFileSync(profile, damaged(encodeProfile(CARD)));
  await expect(loopbackKind.open({ profile }, { log, clock })).rejects.toThrow(message);
});

it('a profile and a VF BAR size are too much', async () => {
  await expect(loopbackKind.open({ profile, vfBarSize: 65536 }, { log, clock })).rejects.toThrow(
    '--vf-bar-size and --profile both say',
  );
});
