// A q35 has its config space as memory as well as behind ports: one command writes all BARs of a slot, and the ports do where
// that memory is not to be had.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { SOON } from '../../patience.ts';
import { DONE, GlueRig } from './glue-rig.ts';

/** As SeaBIOS has it. */
const MMCFG = 0xb000_0000;
const SWITCHED_OFF = 2 ** 64;
const LOST = { placementLost: true };

let rig: GlueRig;

beforeEach(async () => {
  rig = await GlueRig.start();
  rig.qemu.mmcfg = MMCFG;
});

afterEach(() => rig.end());

async function attach(): Promise<void> {
  await rig.attach();
  rig.qemu.qtestCommands.length = 0;
}

describe('where config space is memory', () => {
  it('a slot takes one command for both halves of its BAR, and one for Command', async () => {
    await attach();
    // Where it was is not known.
    rig.qemu.emit('RESET');
    expect(await rig.enable(2, { ...LOST, address: 0x9_0000_4000n })).toEqual([DONE, DONE, DONE]);
    expect(rig.qemu.qtestCommands).toEqual([
      'write 0xb0101010 0x8 0x0040000009000000',
      'writew 0xb0101004 0x2',
      'write 0xb0102010 0x8 0x0040000009000000',
      'writew 0xb0102004 0x2',
    ]);
    expect(rig.timings).toMatchObject([{ placementCommands: 4 }]);
    expect([1, 2].map((devfn) => rig.qemu.register(1, devfn, 0x14))).toEqual([9, 9]);
    expect(rig.qemu.portCommands()).toEqual([]);
    expect(rig.qemu.unsafeWrites).toBe(0);
  });

  it('it is looked for in each pause, because the guest may have moved it', async () => {
    await attach();
    await rig.enable(1, LOST);
    rig.qemu.mmcfg = 0xe000_0000;
    rig.qemu.qtestCommands.length = 0;
    await rig.enable(1, LOST);
    expect(rig.qemu.qtestCommands[0]).toMatch(/^writel 0xe0101014 /);
  });

  it('counts its commands among those of the pause, and tells the backend of them', async () => {
    await attach();
    await rig.enable(1, LOST);
    const asked = rig.qemu.commands.length + rig.qemu.qtestCommands.length;
    expect(rig.timings).toMatchObject([{ monitorCommands: asked }]);
    await vi.waitFor(() => expect(rig.backend.reported).toContain('writew 0xb0101004 0x2'), SOON);
  });
});

describe('the ports are used', () => {
  it('while the guest has switched that memory off', async () => {
    await attach();
    rig.qemu.mmcfg = SWITCHED_OFF;
    await rig.enable(1, LOST);
    expect(rig.qemu.register(1, 1, 4)).toBe(2);
    expect(rig.qemu.portCommands()).not.toEqual([]);
    expect(rig.qemu.configAddress).toBe(0x8001_0004);
    rig.qemu.mmcfg = MMCFG;
    rig.qemu.commands.length = 0;
    await rig.enable(1, LOST);
    expect(rig.qemu.portCommands()).toEqual([]);
  });

  it('where QEMU has a qtest of its own', async () => {
    rig.qemu.react('object-add', 'refuse');
    await attach();
    await rig.enable(1, LOST);
    expect(rig.qemu.register(1, 1, 4)).toBe(2);
    expect(rig.qemu.qtestCommands).toEqual([]);
  });

  it('where the socket is not to be found, of which nothing is left', async () => {
    rig.qemu.react('object-add', {
      first: () => rmSync(join(rig.folder, 'qmp.config')),
    });
    await rig.attach();
    await rig.enable(1, LOST);
    expect(rig.qemu.register(1, 1, 4)).toBe(2);
    expect(rig.qemu.qtestCommands).toEqual([]);
  });
});
