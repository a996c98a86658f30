// RegionChanged over real sockets and real memory: a slot whose client maps the VF's memory when the VF comes, and lets go
// of it when it goes; and the reference VMM, which does so with VFs that it opens itself.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { RegionIndex } from '../../protocol/vfio-user/commands.ts';
import type { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { PciFunction } from '../../vmm-glue/reference-vmm/pci-function.ts';
import { Backend, expectSoon } from './backend.ts';
import {
  AS_GLUE,
  agree,
  reachPhase,
  SriovRegisters,
  startVmm,
  statusOf,
  takeEvents,
} from './hotplug-guest.ts';
import { u32Bytes } from './loopback-device.ts';

const BAR = { index: 0, offset: 0x10, size: 16384n, is64Bit: true, prefetchable: true };
const PATTERN = 0x600d_cafe;
const NOBODY = 0xffff_ffff;

let backend: Backend;

beforeAll(async () => {
  backend = await Backend.start('--total-vfs=2', '--vf-sockets=VF_SOCKETS');
});
afterAll(() => backend.stop());

describe('a slot of a VMM that maps regions anew', () => {
  let glue: VfioUserClient;
  let slot: PciFunction;
  let registers: SriovRegisters;
  /** Of each time that it was told, whether it maps anything since. */
  let told: boolean[];

  beforeEach(async () => {
    const pf = await backend.connect();
    glue = await backend.connect({ capabilities: AS_GLUE });
    told = [];
    const client = await backend.connect(
      {
        onRegionChanged: async (index) => {
          await slot.remapBar(index);
          told.push(slot.areas.length > 0);
        },
      },
      backend.vfSocket(0),
    );
    slot = new PciFunction('slot 0', client);
    slot.adopt([{ ...BAR, isIo: false, address: 0n }], 0, 0);
    await slot.mapBars();
    await client.reset();
    await pf.reset();
    registers = await SriovRegisters.of(pf);
  });
  afterEach(async () => {
    slot.drop();
    await backend.disconnect();
    await reachPhase(backend, 'disabled');
  });

  async function enable(): Promise<void> {
    const enabling = registers.enable(1);
    (await takeEvents(glue, 2)).forEach(agree);
    await takeEvents(glue, 1);
    await enabling;
  }

  async function disable(): Promise<void> {
    const disabling = registers.disable();
    (await takeEvents(glue, 1)).forEach(agree);
    await disabling;
    await reachPhase(backend, 'disabled');
  }

  it('maps nothing before there are VFs, and the VF’s own memory from then on, enable after enable', async () => {
    expect(slot.areas).toEqual([]);
    for (const value of [PATTERN, PATTERN + 1]) {
      await enable();
      await expectSoon(() => told.at(-1), true);
      const [area] = slot.areas;
      expect(area).toBeDefined();
      await slot.writeRegister(BAR.index, area!.offset, value);
      const behind = await slot.client.readRegion(RegionIndex.bar0, area!.offset, 4);
      expect(behind).toEqual(u32Bytes(value));
      expect((await statusOf(backend)).vfs[0]?.memory).toBe('mapped, by the VMM');
      await disable();
      expect(slot.areas).toEqual([]);
      expect(told.at(-1)).toBe(false);
    }
  });

  it('that refuses to map anew gets along with messages', async () => {
    const stubborn = await backend.connect(
      {
        onRegionChanged: () => {
          throw new Error('no room');
        },
      },
      backend.vfSocket(1),
    );
    await enable();
    await disable();
    stubborn.close();
  });
});

describe('the reference VMM', () => {
  it('has nothing mapped of its VFs while VF Memory Space Enable is off', async () => {
    const vmm = await startVmm(backend);
    try {
      const [vf] = await vmm.enableVfs(1);
      const [area] = vf!.areas;
      await vf!.writeRegister(BAR.index, area!.offset, PATTERN);
      await vmm.sriov.setMemorySpace(false);
      await expectSoon(() => vf!.areas.length, 0);
      expect(await vf!.readRegister(BAR.index, area!.offset)).toBe(NOBODY);
      await vmm.sriov.setMemorySpace(true);
      await expectSoon(() => vf!.areas.length, 1);
      expect(await vf!.readRegister(BAR.index, area!.offset)).toBe(PATTERN);
      await vmm.disableVfs();
    } finally {
      await vmm.close();
    }
  });
});
