import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Offset } from '../../../backend/devices/kit/capabilities.ts';
import { Register } from '../../../backend/devices/loopback/registers.ts';
import { createEventFd, drainEventFd } from '../../../protocol/unix/eventfd.ts';
import { closeFd } from '../../../protocol/unix/libc.ts';
import { dupFd } from '../../../protocol/unix/memory.ts';
import { IrqIndex, RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { IrqSetFlag } from '../../../protocol/vfio-user/messages.ts';
import { openFds } from '../protocol/unix/open-fds.ts';
import {
  AS_NATIVE,
  AS_QEMU,
  At,
  BUS_MASTER,
  bar,
  DeviceUnderTest,
  FLR,
  functionLevelReset,
  MEMORY_SPACE,
  mapPage,
  read,
  read16,
  VF_ENABLE,
  VF_MEMORY_SPACE,
  write,
  write16,
  writeBar,
} from './device-under-test.ts';

const CONFIG_BYTES = 4096;
const BAR_BYTES = 65_536;
const IDS = [0x0f, 0x1d, 0x53, 0x00];

let before: number;
let device: DeviceUnderTest;

beforeEach(() => {
  before = openFds();
  device = new DeviceUnderTest();
  device.pf.attach(AS_QEMU);
});
afterEach(() => {
  device.close();
  expect(openFds()).toBe(before);
});

/** Whoever is not interested in the answer, and lets nobody else have a turn. */
const NOW = [() => {}, (rest: () => void) => rest()] as const;

function reset(): void {
  device.pf.reset(() => {});
}

describe('the late reveal', () => {
  it('shows QEMU the first 256 bytes alone when it reads all 4096 at once', () => {
    const image = read(device.pf, 0, CONFIG_BYTES);
    expect([...image.subarray(0, 4)]).toEqual(IDS);
    expect(image[0x34]).toBe(Offset.powerManagement);
    expect(image.subarray(0x100)).toEqual(new Uint8Array(CONFIG_BYTES - 0x100));
  });

  it.each([
    ['that crosses 0x100', 0xfc, 8],
    ['of one byte', 0x100, 1],
    ['at an odd offset', Offset.sriov - 1, 7],
    ['of the last bytes', CONFIG_BYTES - 3, 3],
  ])('reads 0 above 0x100 in a read %s', (_, offset, length) => {
    const hidden = read(device.pf, offset, length).subarray(Math.max(0, 0x100 - offset));
    expect(hidden).toEqual(new Uint8Array(hidden.length));
  });

  it('lets nothing that is hidden be written', () => {
    write(device.pf, At.numVfs, [2, 0]);
    write(device.pf, 0xfe, [0, 0, 0xff, 0xff]);
    reset();
    expect(read16(device.pf, At.numVfs)).toBe(0);
    expect(device.events).toEqual([]);
  });

  it('ends with the first DEVICE_RESET: ARI, SR-IOV, then AER', () => {
    reset();
    const view = new DataView(read(device.pf, 0, CONFIG_BYTES).buffer);
    expect(view.getUint32(Offset.ari, true)).toBe(0x1101_000e);
    expect(view.getUint32(Offset.sriov, true)).toBe(0x1501_0010);
    expect(view.getUint16(Offset.sriov + 0x0e, true)).toBe(4);
  });

  it('does not take place for a client that knows hot-plug', () => {
    device.pf.detach();
    device.pf.attach(AS_NATIVE);
    expect(read16(device.pf, Offset.sriov)).toBe(0x0010);
  });

  it('starts anew with the next client', () => {
    reset();
    device.pf.detach();
    device.pf.attach(AS_QEMU);
    expect(read16(device.pf, Offset.sriov)).toBe(0);
  });
});

describe('attaching', () => {
  it('is refused with EBUSY while somebody is attached, who notices nothing', () => {
    reset();
    expect(() => device.pf.attach(AS_NATIVE)).toThrow(expect.objectContaining({ code: 'EBUSY' }));
    expect(device.pf.attached).toBe(true);
    expect(read16(device.pf, Offset.sriov)).toBe(0x0010);
  });

  it('is possible again after the client has gone', () => {
    device.pf.detach();
    device.pf.attach(AS_QEMU);
    expect(device.pf.attached).toBe(true);
  });
});

describe('the SR-IOV capability', () => {
  beforeEach(reset);

  it('tells what a write meant', () => {
    device.setVfEnable(2);
    expect(device.events).toEqual([
      { type: 'vfMemorySpaceEnable', value: true },
      { type: 'vfEnableSet', numVfs: 2 },
    ]);
  });

  it('takes a write of all its bytes at once as what it is in sum', () => {
    const bytes = read(device.pf, At.sriov, 0x40);
    bytes[0x08] = VF_ENABLE | VF_MEMORY_SPACE;
    bytes[0x10] = 3;
    write(device.pf, At.sriov, [...bytes]);
    expect(device.events).toContainEqual({ type: 'vfEnableSet', numVfs: 0 });
    expect(read16(device.pf, At.numVfs)).toBe(0);
  });

  it('is never the hardware’s: nothing of it is read or written there', () => {
    device.setVfEnable(2);
    expect(device.pfHardware.readConfig(At.numVfs, 2)).toBe(0);
    expect(device.pfHardware.readConfig(At.sriovControl, 2)).toBe(0);
  });
});

describe('accesses at the edges', () => {
  beforeEach(reset);

  it('of all 4096 bytes, written as ones, leave the IDs and do what each bit says, no more', () => {
    write(device.pf, 0, new Array(CONFIG_BYTES).fill(0xff));
    expect([...read(device.pf, 0, 4)]).toEqual(IDS);
    expect(device.pfHardware.resets).toBe(2);
    expect(device.events).toContainEqual({ type: 'vfEnableSet', numVfs: 0 });
    expect(read16(device.pf, At.numVfs)).toBe(0);
  });

  it('of all 4096 bytes, written as they were read, start nothing', () => {
    write(device.pf, 0, [...read(device.pf, 0, CONFIG_BYTES)]);
    expect(device.events).toEqual([]);
    expect(device.pfHardware.resets).toBe(1);
  });

  it('at odd offsets are as good as aligned ones', () => {
    write(device.pf, At.bar0 + 1, [0x00, 0x34, 0x12, 0x01]);
    expect([...read(device.pf, At.bar0, 5)]).toEqual([0x0c, 0x00, 0x34, 0x12, 0x01]);
    expect([...read(device.pf, 1, 2)]).toEqual([0x1d, 0x53]);
  });

  it.each([
    ['config space', RegionIndex.config, CONFIG_BYTES],
    ['BAR 0', RegionIndex.bar0, BAR_BYTES],
  ])('reach the last byte of %s and not the one behind it', (_, region, size) => {
    const one = new Uint8Array(1);
    expect(() => device.pf.readRegion(region, size - 1, one)).not.toThrow();
    expect(() => device.pf.writeRegion(region, size - 1, one)).not.toThrow();
    for (const [offset, length] of [
      [size, 1],
      [size - 1, 2],
      [size + 4096, 4],
      [Number.MAX_SAFE_INTEGER, 4],
    ] as const) {
      const bytes = new Uint8Array(length);
      const invalid = expect.objectContaining({ code: 'EINVAL' });
      expect(() => device.pf.readRegion(region, offset, bytes)).toThrow(invalid);
      expect(() => device.pf.writeRegion(region, offset, bytes)).toThrow(invalid);
    }
  });

  it('of no bytes do nothing, also at the very end, in every region that there is', () => {
    const none = new Uint8Array(0);
    for (const { index, size } of device.pf.shape.regions) {
      device.pf.readRegion(index, size, none);
      device.pf.writeRegion(index, size, none);
    }
    expect(device.events).toEqual([]);
  });

  it.each([9, 0xffff_ffff])('of region %i, which does not exist, are EINVAL', (region) => {
    const invalid = expect.objectContaining({ code: 'EINVAL' });
    expect(() => device.pf.readRegion(region, 0, new Uint8Array(0))).toThrow(invalid);
    expect(() => device.pf.writeRegion(region, 0, new Uint8Array(0))).toThrow(invalid);
    expect(() => device.pf.region(region)).toThrow(invalid);
    expect(() => device.pf.irq(region)).toThrow(invalid);
  });
});

describe('a reset that takes its time', () => {
  beforeEach(() => {
    reset();
    write16(device.pf, At.command, MEMORY_SPACE | BUS_MASTER);
    writeBar(device.pf, Register.scratch, 7);
    device.pfHardware.isSlow = true;
  });
  afterEach(() => {
    device.pfHardware.isSlow = false;
  });

  it('reads as all-ones until it is over, and takes no writes', () => {
    functionLevelReset(device.pf);
    expect(read16(device.pf, At.command)).toBe(0xffff);
    expect([...bar(device.pf, Register.magic)]).toEqual([0xff, 0xff, 0xff, 0xff]);
    write16(device.pf, At.command, BUS_MASTER);
    writeBar(device.pf, Register.scratch, 9);
    device.pfHardware.finish();
    expect(read16(device.pf, At.command)).toBe(0);
    expect([...bar(device.pf, Register.scratch)]).toEqual([0, 0, 0, 0]);
  });

  it('clears VF Enable at once, not when the host is done', () => {
    device.enable();
    functionLevelReset(device.pf);
    expect(device.pf.sriov.vfEnable).toBe(false);
    expect(device.cleared).toBe(2);
    device.pfHardware.finish();
  });

  it('answers DEVICE_RESET when the host is done', () => {
    let answered = false;
    device.pf.reset(() => {
      answered = true;
    });
    expect(answered).toBe(false);
    device.pfHardware.finish();
    expect(answered).toBe(true);
  });

  it('is over when the last of several is over', () => {
    functionLevelReset(device.pf);
    reset();
    device.pfHardware.finish();
    expect(read16(device.pf, At.command)).toBe(0xffff);
    device.pfHardware.finish();
    expect(read16(device.pf, At.command)).toBe(0);
  });

  it('is started once by a write of four bytes', () => {
    write(device.pf, At.deviceControl, [0, FLR >> 8, 0, 0]);
    expect(device.pfHardware.resets).toBe(2);
    device.pfHardware.finish();
  });
});

describe('guest memory', () => {
  it('reaches the hardware with an fd of its own, which lives until it has mapped', () => {
    device.pfHardware.isSlow = true;
    const open = openFds();
    mapPage(device.pf, 0n);
    expect(openFds()).toBe(open + 2);
    device.pfHardware.finish();
    expect(openFds()).toBe(open + 1);
    expect(device.pf.memory.windows.all[0]!.fd).not.toBe(device.pfHardware.mapped[0]!.fd);
  });

  it('without a file behind it is noted, and never given to the hardware', () => {
    const window = { address: 0n, size: 4096n, fd: -1, fileOffset: 0n };
    device.pf.mapDma({ ...window, readable: true, writable: true }, () => {});
    expect(device.pf.memory.windows.size).toBe(1);
    device.pf.unmapDma(0n, 4096n, ...NOW);
    expect(device.pf.memory.windows.size).toBe(0);
    expect(device.pfHardware.mapped).toEqual([]);
    expect(device.pfHardware.unmapped).toEqual([]);
  });

  it('that the host refuses is not kept, is taken back there, and is remembered as why VFs cannot work', () => {
    device.pfHardware.refusesMaps = true;
    expect(mapPage(device.pf, 0x1000n).error?.message).toMatch(/ENOMEM/);
    expect(device.pf.memory.windows.size).toBe(0);
    expect(device.pfHardware.unmapped).toMatchObject([{ address: 0x1000n }]);
    expect(device.pf.memory.failedMaps.sentences).toEqual([
      expect.stringMatching(/0x1000\+0x1000 .*ENOMEM/),
    ]);
    device.pf.detach();
    expect(device.pf.memory.failedMaps.sentences).toEqual([]);
  });

  it('is taken back when its client has gone, once the function does no DMA any more', () => {
    mapPage(device.pf, 0x1000n);
    write16(device.pf, At.command, BUS_MASTER);
    const whileUnmapping: number[] = [];
    const { pfHardware } = device;
    const unmapAllDma = vi.spyOn(pfHardware, 'unmapAllDma').mockImplementation((done) => {
      whileUnmapping.push(pfHardware.readConfig(At.command, 2) & BUS_MASTER);
      done();
    });
    device.pf.detach();
    unmapAllDma.mockRestore();
    expect(whileUnmapping).toEqual([0]);
  });

  it('that is refused after its client has gone says nothing about the next client', () => {
    device.pfHardware.isSlow = true;
    device.pfHardware.refusesMaps = true;
    mapPage(device.pf, 0n);
    device.pf.detach();
    device.pf.attach(AS_QEMU);
    device.pfHardware.finish();
    expect(device.pf.memory.failedMaps.sentences).toEqual([]);
  });

  it('is unmapped in one answer, whatever it spans', () => {
    for (const page of [0n, 1n, 5n]) {
      mapPage(device.pf, page * 4096n);
    }
    let answers = 0;
    const answered = () => {
      answers++;
    };
    device.pf.unmapDma(0n, 1n << 64n, answered, NOW[1]);
    expect(answers).toBe(1);
    expect(device.pf.memory.windows.size).toBe(0);
    expect(device.pfHardware.unmapped).toHaveLength(3);
    device.pf.unmapDma(0n, 4096n, answered, NOW[1]);
    expect(answers).toBe(2);
  });
});

describe('the end of a client', () => {
  it('takes its interrupts and its memory from the hardware, and clears VF Enable', () => {
    reset();
    mapPage(device.pf, 0n);
    const line = createEventFd();
    device.pf.setIrqs({
      index: IrqIndex.msix,
      start: 0,
      count: 1,
      flags: IrqSetFlag.dataEventFd | IrqSetFlag.actionTrigger,
      eventFds: [dupFd(line)],
    });
    device.enable();
    device.pf.detach();
    expect(device.pfHardware.unmappedAll).toBe(1);
    expect(device.pfHardware.irqs.at(-1)).toMatchObject({ index: IrqIndex.msix, count: 0 });
    expect(device.pf.sriov.vfEnable).toBe(false);
    expect(device.pf.memory.windows.size).toBe(0);
    closeFd(line);
  });

  it('goes through when the hardware refuses everything, and is told', () => {
    const line = createEventFd();
    device.pf.setIrqs({
      index: IrqIndex.msix,
      start: 0,
      count: 1,
      flags: IrqSetFlag.dataEventFd | IrqSetFlag.actionTrigger,
      eventFds: [dupFd(line)],
    });
    device.pfHardware.refusesIrqs = true;
    device.pfHardware.refusesUnmaps = true;
    device.pf.detach();
    expect(device.failures).toEqual([
      expect.stringMatching(/interrupts of pf.*SET_IRQS/),
      expect.stringMatching(/guest memory of pf.*unmapAllDma/),
    ]);
    closeFd(line);
  });

  it('that was never attached changes nothing', () => {
    device.pf.detach();
    const { cleared } = device;
    device.pf.detach();
    expect(device.cleared).toBe(cleared);
  });
});

describe('a host that wants the PF back', () => {
  it('is passed on to the VMM by the REQ interrupt', () => {
    const line = createEventFd();
    device.pf.setIrqs({
      index: IrqIndex.req,
      start: 0,
      count: 1,
      flags: IrqSetFlag.dataEventFd | IrqSetFlag.actionTrigger,
      eventFds: [dupFd(line)],
    });
    device.pf.releaseRequested();
    expect(drainEventFd(line)).toBe(1n);
    closeFd(line);
  });
});
