// VF slots over their sockets, as stock QEMU uses them: dormant functions that come alive when the guest enables VFs and
// a glue says that they are placed.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Errno } from '../../protocol/errno.ts';
import { IrqIndex, RegionIndex } from '../../protocol/vfio-user/commands.ts';
import type { VfioUserClient } from '../../vmm-glue/client/client.ts';
import type { HotplugEvent } from '../../vmm-glue/client/hotplug.ts';
import { Interrupt } from '../../vmm-glue/client/interrupts.ts';
import { GuestMemory } from '../../vmm-glue/client/memory.ts';
import { Register } from '../../vmm-glue/reference-vmm/loopback-registers.ts';
import { Backend, expectErrno, expectSoon } from './backend.ts';
import { AS_GLUE, agree, reachPhase, SriovRegisters, takeEvents } from './hotplug-guest.ts';
import { copy, DmaStatus, readU32At, ring, u32Bytes } from './loopback-device.ts';

const PAGE = 4096;
const COMMAND = 0x04;
const MEMORY_AND_BUS_MASTER = 0x6;
const VF_MAGIC = 0x52535556;
const NOBODY = 0xffffffff;

let backend: Backend;
let pf: VfioUserClient;
let glue: VfioUserClient;
let slot: VfioUserClient;
let registers: SriovRegisters;

beforeAll(async () => {
  backend = await Backend.start('--total-vfs=4', '--vf-sockets=VF_SOCKETS');
});
beforeEach(async () => {
  pf = await backend.connect();
  slot = await backend.connect({}, backend.vfSocket(1));
  glue = await backend.connect({ capabilities: AS_GLUE });
  await slot.reset();
  await pf.reset();
  registers = await SriovRegisters.of(pf);
});
afterEach(async () => {
  pf.close();
  slot.close();
  await agreeToAll();
  await backend.disconnect();
  await reachPhase(backend, 'disabled');
});
afterAll(() => backend.stop());

/** The glue lets everything go that is still asked of it. */
async function agreeToAll(): Promise<void> {
  const loop = (async () => {
    for await (const event of glue.hotplugEvents()) {
      agree(event);
    }
  })();
  await reachPhase(backend, 'disabled');
  glue.close();
  await loop;
}

/** VF Enable, the glue's part included; gives the plug of VF 1. */
async function enable(): Promise<HotplugEvent> {
  await registers.enable(2);
  const events = await takeEvents(glue, 3);
  events.forEach(agree);
  await takeEvents(glue, 1);
  return events[2]!;
}

async function disable(): Promise<void> {
  await registers.disable();
  (await takeEvents(glue, 2)).forEach(agree);
  await reachPhase(backend, 'disabled');
}

/** What the glue does in QEMU: Memory Space Enable (and a driver's Bus Master). */
async function place(): Promise<void> {
  await slot.writeRegion(RegionIndex.config, COMMAND, Uint8Array.of(MEMORY_AND_BUS_MASTER, 0));
}

describe('a VF slot', () => {
  it('has a VF’s real IDs and BAR when QEMU realises it, so that QEMU takes it', async () => {
    const fresh = await backend.connect({}, backend.vfSocket(3));
    expect(await readU32At(fresh, RegionIndex.config, 0)).toBe(0x0054_1d0f);
    const { info, fd } = await fresh.regionInfo(RegionIndex.bar0);
    expect(info.size).toBe(16384);
    expect(fd).toBeUndefined();
    expect((await fresh.irqInfo(IrqIndex.msix)).count).toBe(4);
    // The type bits of a 64-bit BAR: without them QEMU would cut its address to 32 bits.
    expect(await readU32At(fresh, RegionIndex.config, 0x10)).toBe(0xc);
  });

  it('is not found by a scan once it was reset', async () => {
    expect(await readU32At(slot, RegionIndex.config, 0)).toBe(NOBODY);
  });

  it('reads all ones in its BAR while VFs are disabled, and ignores writes', async () => {
    await place();
    await slot.writeRegion(RegionIndex.bar0, Register.scratch, u32Bytes(1));
    expect(await readU32At(slot, RegionIndex.bar0, Register.scratch)).toBe(NOBODY);
  });

  it('reads as absent between VF Enable and the glue’s answer, so that no guest ever sees it half-placed', async () => {
    const enabling = registers.enable(2);
    const events = await takeEvents(glue, 3);
    expect((await slot.readRegion(RegionIndex.config, 0x0e, 1))[0]).toBe(0xff);
    expect(await readU32At(slot, RegionIndex.bar0, Register.magic)).toBe(NOBODY);
    events.forEach(agree);
    await takeEvents(glue, 1);
    await enabling;
    expect((await slot.readRegion(RegionIndex.config, 0x0e, 1))[0]).toBe(0);
    expect(await readU32At(slot, RegionIndex.bar0, Register.magic)).toBe(VF_MAGIC);
  });

  it('reads all ones when the glue refused a VF, so that the guest notices', async () => {
    const enabling = registers.enable(2);
    const events = await takeEvents(glue, 3);
    for (const event of events) {
      if (event.kind === 'vfPlug') {
        event.refuse(Errno.EIO, 'no slot');
      } else {
        agree(event);
      }
    }
    await takeEvents(glue, 1);
    await enabling;
    expect((await slot.readRegion(RegionIndex.config, 0x0e, 1))[0]).toBe(0xff);
  });

  it('shows its own registers', async () => {
    await enable();
    await place();
    expect(await readU32At(slot, RegionIndex.bar0, Register.functionNumber)).toBe(2);
  });

  it('keeps Memory Space Enable as it was written, for a guest that reads, changes and writes Command', async () => {
    await enable();
    await place();
    const [low] = await slot.readRegion(RegionIndex.config, COMMAND, 1);
    expect(low).toBe(MEMORY_AND_BUS_MASTER);
  });

  it('goes dead when the guest disables VFs', async () => {
    await enable();
    await place();
    await disable();
    expect(await readU32At(slot, RegionIndex.bar0, Register.magic)).toBe(NOBODY);
  });

  it('tells the glue once that its placement was lost, and again after its reset', async () => {
    const lost = async (): Promise<boolean> => {
      const plug = await enable();
      await disable();
      return plug.kind === 'vfPlug' && plug.message.placementLost === true;
    };
    expect(await lost()).toBe(true);
    expect(await lost()).toBe(false);
    await slot.reset();
    expect(await lost()).toBe(true);
  });

  it('keeps eventfds and memory over disabling and enabling, as QEMU never binds them again', async () => {
    const line = new Interrupt();
    const memory = new GuestMemory(PAGE);
    await slot.mapDma({ address: 0n, size: BigInt(PAGE), fd: memory.fd });
    await slot.bindInterrupts(IrqIndex.msix, 2, [line]);
    memory.bytes.set([9, 8, 7]);
    for (const round of [1, 2, 3]) {
      await enable();
      await place();
      expect(await copy(slot, 0n, BigInt(100 * round), 3, 2)).toBe(DmaStatus.done);
      expect(await line.next()).toBe(1n);
      expect([...memory.bytes.subarray(100 * round, 100 * round + 3)]).toEqual([9, 8, 7]);
      await disable();
    }
    line.close();
    memory.close();
  });

  it('keeps eventfds over its DEVICE_RESET', async () => {
    const line = new Interrupt();
    await slot.bindInterrupts(IrqIndex.msix, 0, [line]);
    await enable();
    await slot.reset();
    await expectSoon(() => readU32At(slot, RegionIndex.bar0, Register.magic), VF_MAGIC);
    await place();
    await ring(slot, 0);
    expect(await line.next()).toBe(1n);
    line.close();
  });

  it('takes one client at a time, and the next when that one has gone', async () => {
    await expectErrno(backend.connect({}, backend.vfSocket(1)), 'EBUSY');
    slot.close();
    slot = await backend.connect({}, backend.vfSocket(1));
    expect(await readU32At(slot, RegionIndex.config, 0)).toBe(0x0054_1d0f);
  });

  it('does not offer hot-plug or status on its socket', async () => {
    const client = await backend.connect(
      { capabilities: { ...AS_GLUE, sriov_status: { version: 1 } } },
      backend.vfSocket(3),
    );
    expect(client.agreed.hotplug).toBeUndefined();
    expect(client.agreed.status).toBeUndefined();
  });

  it('leaves the other functions alone when its client dies in the middle of a message', async () => {
    await enable();
    await place();
    slot.sendRaw(Uint8Array.of(1, 0, 9, 0, 32, 0));
    slot.close();
    expect(await readU32At(pf, RegionIndex.bar0, Register.magic)).toBe(VF_MAGIC);
  });
});

describe('slots of VFs that are off', () => {
  it('are told to the glue when the guest has moved them, and where they belong when it asks', async () => {
    const told = new Promise<void>((resolve) => glue.whenSlotsMoved(resolve));
    expect(await glue.slots(0, 4)).toEqual([]);
    await registers.moveVfs(8);
    await told;
    expect(await glue.slots(2, 2)).toMatchObject([
      { vfIndex: 2, routingIdOffset: 3, placementLost: true, slotCommand: 0 },
      { vfIndex: 3, routingIdOffset: 4, placementLost: true, slotCommand: 0 },
    ]);
    await slot.writeRegion(RegionIndex.config, 0x14, u32Bytes(8));
    const [{ placementLost, bars } = {}] = await glue.slots(1, 1);
    expect([placementLost, bars?.[0]?.address]).toEqual([false, 0x8_0000_4000n]);
  });

  it('are told to a glue alone', async () => {
    await expectErrno(pf.slots(0, 1), 'EPERM');
  });
});

describe('VF Enable without a glue', () => {
  it('fails as hardware fails, and the log says what to start', async () => {
    glue.close();
    await reachPhase(backend, 'disabled');
    await registers.enable(2);
    expect((await slot.readRegion(RegionIndex.config, 0x0e, 1))[0]).toBe(0xff);
    await expectSoon(() => backend.log.includes('attach-qemu'), true);
    await registers.disable();
    glue = await backend.connect({ capabilities: AS_GLUE });
  });
});
