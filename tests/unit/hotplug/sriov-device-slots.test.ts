// The device as a whole with a VM that has slots, and a glue that places them.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { ExpectedMemory } from '../../../backend/device/physical-device.ts';
import { Offset } from '../../../backend/devices/kit/capabilities.ts';
import { HEADER } from '../../../backend/pci/spec/header.ts';
import { SRIOV } from '../../../backend/pci/spec/sriov.ts';
import {
  decodeEnableBegin,
  decodeVfMemorySpace,
  decodeVfPlug,
  encodeVfsTrapped,
} from '../../../protocol/hotplug/codec.ts';
import { HotplugCommand } from '../../../protocol/hotplug/commands.ts';
import {
  DRAWN_OUT_MILLISECONDS,
  GUEST_WAIT_MILLISECONDS,
  LONGEST_HOLD_MILLISECONDS,
  SILENT_GLUE_MILLISECONDS,
} from '../../../protocol/hotplug/timing.ts';
import { closeFd } from '../../../protocol/unix/libc.ts';
import { createMemfd, dupFd } from '../../../protocol/unix/memory.ts';
import { Command, RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { encodeFrame } from '../../../protocol/vfio-user/framing.ts';
import { DmaFlag, DmaMap, RegionAccess } from '../../../protocol/vfio-user/messages.ts';
import { openFds } from '../protocol/unix/open-fds.ts';
import { AS_GLUE, type Client, LIMITS, SriovDeviceRig, VF_ENABLE } from './sriov-device-rig.ts';

const VF_ENABLE_WITHOUT_MEMORY = 0x1;

let rig: SriovDeviceRig;

beforeEach(() => {
  rig = new SriovDeviceRig();
});

afterEach(() => rig.end());

describe('a VM with slots', () => {
  let qemu: Client;
  let glue: Client;
  beforeEach(() => {
    qemu = rig.attach(rig.device.pfEndpoint, {});
    glue = rig.attach(rig.device.pfEndpoint, AS_GLUE);
    for (const { index } of rig.device.vfs) {
      rig.attach(rig.device.vfEndpoint(index, false), {});
    }
    for (const { session } of rig.clients.filter((client) => client !== glue)) {
      session.receive(encodeFrame({ id: 9, command: Command.deviceReset, flags: 0 }), []);
    }
    rig.settle();
  });

  it('has VFs when the glue has placed all of them', () => {
    glue.answers = false;
    rig.setVfEnable(qemu, 2);
    rig.settle();
    expect(rig.status().phase).toBe('plugging');
    expect(rig.status().vfs[0]?.state).toBe('coming-up');
    for (const frame of glue.told.splice(0)) {
      if (!frame.noReply) {
        glue.answer(frame);
      }
    }
    rig.settle();
    expect(rig.status().vfs.slice(0, 2)).toMatchObject([
      { state: 'up', holder: 'guest' },
      { state: 'up', holder: 'guest' },
    ]);
  });

  describe('whose slots keep their places', () => {
    const slotOf = (vfIndex: number) =>
      rig.clients.find(({ session }) => session.endpoint.function === rig.device.vfs[vfIndex])!;
    const begins = () =>
      glue.told
        .filter(({ command }) => command === HotplugCommand.enableBegin)
        .map(({ body }) => decodeEnableBegin(body).placed ?? false);
    const lastPlug = () =>
      decodeVfPlug(
        glue.told.filter(({ command }) => command === HotplugCommand.vfPlug).at(-1)!.body,
      );

    beforeEach(() => {
      rig.setVfEnable(qemu, 1);
      rig.settle();
      expect(lastPlug().slotCommand).toBeUndefined();
      // As the glue does it in QEMU, which passes it on.
      rig.write16(slotOf(0), HEADER.command.offset, 2);
      rig.clearVfEnable(qemu);
      rig.settle();
    });

    it('the glue is told so at the next enable', () => {
      rig.setVfEnable(qemu, 1);
      rig.settle();
      expect(begins()).toEqual([false, true]);
      expect(lastPlug().slotCommand).toBe(2);
    });

    it('not of more VFs than were placed', () => {
      rig.setVfEnable(qemu, 2);
      rig.settle();
      expect(begins()).toEqual([false, false]);
    });

    it('not where somebody has cleared Memory Space Enable since', () => {
      rig.write16(slotOf(0), HEADER.command.offset, 4);
      rig.setVfEnable(qemu, 1);
      rig.settle();
      expect(begins()).toEqual([false, false]);
      expect(lastPlug().slotCommand).toBe(4);
    });

    it('not where the slot was reset since, though somebody has set Memory Space Enable again', () => {
      const { session } = slotOf(0);
      session.receive(encodeFrame({ id: 9, command: Command.deviceReset, flags: 0 }), []);
      rig.write16(slotOf(0), HEADER.command.offset, 2);
      rig.setVfEnable(qemu, 1);
      rig.settle();
      expect(begins()).toEqual([false, false]);
    });
  });

  /** The client of a VF's slot maps so many windows into one file. */
  function mapPages(count: number, vfIndex = 0): void {
    const slot = rig.clients.find(
      ({ session }) => session.endpoint.function === rig.device.vfs[vfIndex],
    )!;
    const memory = createMemfd('guest', 1 << 20);
    for (let page = 0; page < count; page++) {
      const at = BigInt(page * 4096);
      const flags = DmaFlag.read | DmaFlag.write;
      const body = DmaMap.encode({
        argsz: DmaMap.size,
        flags,
        offset: at,
        address: 2n * at,
        size: 4096n,
      });
      const frame = encodeFrame({ id: 1, command: Command.dmaMap, flags: 0 }, body);
      slot.session.receive(frame, [dupFd(memory)]);
    }
    closeFd(memory);
  }

  it('lends its host one fd for all windows into a file, until the VFs are made', () => {
    mapPages(50);
    const before = openFds();
    rig.setVfEnable(qemu, 1);
    expect(openFds() - before).toBe(1);
    rig.settle();
    expect(rig.status().phase).toBe('enabled');
    expect(openFds()).toBeLessThanOrEqual(before + 1);
  });

  it('tells its host of many windows in turns, with one fd all the same', () => {
    mapPages(600);
    const before = openFds();
    rig.setVfEnable(qemu, 1);
    expect(rig.host.asked).toEqual(['expectMemory']);
    rig.clock.elapse(0);
    expect(rig.host.asked).toEqual([...Array(3).fill('expectMemory'), 'createVfs']);
    expect(openFds() - before).toBe(1);
    rig.settle();
    expect(rig.status().phase).toBe('enabled');
    expect(openFds()).toBeLessThanOrEqual(before + 1);
  });

  it('tells its host of the windows of several VFs in one message', () => {
    mapPages(2, 0);
    mapPages(3, 1);
    const request = vi.spyOn(rig.host, 'request');
    rig.setVfEnable(qemu, 2);
    expect(rig.host.asked).toEqual(['expectMemory', 'createVfs']);
    const told = request.mock.calls[0]![1][0] as unknown as readonly ExpectedMemory[];
    expect(told.map(({ index, windows }) => [index, windows.length])).toEqual([
      [0, 2],
      [1, 3],
    ]);
    rig.settle();
    expect(rig.status().phase).toBe('enabled');
  });

  it('has an enable fail whose memory cannot be handed over, and the next one work', () => {
    mapPages(600);
    const { memory } = rig.device.vfs[0]!;
    const handOver = vi.spyOn(memory, 'handOver');
    handOver.mockImplementationOnce((_tell, later, done) =>
      later(() => done(new Error('too many open files'))),
    );
    rig.setVfEnable(qemu, 1);
    rig.clock.elapse(0);
    rig.settle();
    expect(rig.status()).toMatchObject({
      phase: 'disabled',
      failure: expect.stringContaining('too many open files'),
    });
    rig.clearVfEnable(qemu);
    rig.setVfEnable(qemu, 1);
    rig.clock.elapse(0);
    rig.settle();
    expect(rig.status().phase).toBe('enabled');
  });

  it('keeps no timer of an enable or a disable that is over', () => {
    for (let turn = 0; turn < 10; turn++) {
      rig.setVfEnable(qemu, 2);
      rig.settle();
      expect(rig.status().phase).toBe('enabled');
      rig.clearVfEnable(qemu);
      rig.settle();
    }
    expect(rig.clock.pending).toBe(0);
  });

  it('has its glue place them while the host still makes them', () => {
    glue.answers = false;
    rig.setVfEnable(qemu, 2);
    glue.turn();
    expect(rig.status().phase).toBe('creating');
    const { enableBegin, vfPlug, enableEnd } = HotplugCommand;
    const told = glue.told.splice(0);
    expect(told.map(({ command }) => command)).toEqual([enableBegin, vfPlug, vfPlug]);
    for (const frame of told) {
      glue.answer(frame);
    }
    rig.settle();
    expect(glue.told.map(({ command }) => command)).toEqual([enableEnd]);
    expect(rig.status().phase).toBe('enabled');
  });

  describe('whose guest looks before the glue has answered', () => {
    beforeEach(() => {
      glue.answers = false;
      rig.setVfEnable(qemu, 1);
      glue.turn();
      rig.clock.elapse(GUEST_WAIT_MILLISECONDS + LONGEST_HOLD_MILLISECONDS);
    });

    it('waits for the answer at its first look, and sees a VF then', () => {
      let isOver = false;
      rig.device.vfs[0]!.holdRead(RegionIndex.config)!.wait(() => {
        isOver = true;
      });
      rig.clock.elapse(DRAWN_OUT_MILLISECONDS);
      expect(isOver).toBe(false);
      glue.answer(glue.told[0]!);
      expect(isOver).toBe(true);
      rig.clock.elapse(SILENT_GLUE_MILLISECONDS);
      expect(rig.headerType()).toBe(0);
    });

    it('sees none once a second has passed without', () => {
      let isOver = false;
      rig.device.vfs[0]!.holdRead(RegionIndex.config)!.wait(() => {
        isOver = true;
      });
      rig.clock.elapse(
        SILENT_GLUE_MILLISECONDS - GUEST_WAIT_MILLISECONDS - LONGEST_HOLD_MILLISECONDS,
      );
      expect(isOver).toBe(true);
      expect(rig.status().phase).toBe('creating');
      expect(rig.headerType()).toBe(0xff);
      expect(rig.device.vfs[0]!.holdRead(RegionIndex.config)).toBeUndefined();
    });
  });

  it('has none where no glue is attached: the guest sees it, and the log says what to start', () => {
    glue.session.disconnected();
    rig.setVfEnable(qemu, 2);
    rig.settle();
    expect(rig.headerType()).toBe(0xff);
    expect(rig.host.asked).toEqual([]);
    expect(rig.status().failure).toMatch(/attach-qemu/);
    expect(rig.log.at(-1)).toMatch(/warn: VF Enable failed: .*attach-qemu/);
  });

  it.each([
    ['PF', () => rig.device.pf],
    ['VF', () => rig.device.vfs[1]!],
  ])('has none where the host could not reach the guest’s memory for a %s', (_which, of) => {
    of().memory.failedMaps.add('guest memory 0x0+0x1000 could not be mapped: ENOMEM');
    rig.setVfEnable(qemu, 1);
    rig.settle();
    expect(rig.headerType()).toBe(0xff);
    expect(rig.status().failure).toMatch(/ENOMEM/);
  });

  it('looks the same in all ways when NumVFs is more than there are: nothing is enabled', () => {
    rig.setVfEnable(qemu, 5);
    rig.settle();
    expect(rig.status()).toMatchObject({ phase: 'disabled', vfEnable: false });
    expect(rig.host.asked).toEqual([]);
  });

  it('is told that an enable failed when its glue goes in the middle, and the next glue starts afresh', () => {
    rig.setVfEnable(qemu, 2);
    glue.session.disconnected();
    const next = rig.attach(rig.device.pfEndpoint, AS_GLUE);
    rig.settle();
    expect(next.told).toEqual([]);
    expect(rig.headerType()).toBe(0xff);
    expect(rig.status()).toMatchObject({
      phase: 'disabled',
      failure: expect.stringMatching(/disconn/),
    });
    rig.clearVfEnable(qemu);
    rig.setVfEnable(qemu, 2);
    rig.settle();
    expect(rig.status()).toMatchObject({ phase: 'enabled', generation: 2 });
  });

  it('goes on when a VF that the kernel wants back takes the others with it', () => {
    rig.setVfEnable(qemu, 2);
    rig.settle();
    rig.device.vfLost(1);
    rig.settle();
    expect(rig.status()).toMatchObject({
      phase: 'disabled',
      failure: expect.stringMatching(/wants VF 1 back/),
    });
    expect(rig.headerType()).toBe(0xff);
  });
});

describe('VFs that may be mapped by carriers', () => {
  let qemu: Client;
  let glue: Client;
  let slot: Client;
  beforeEach(() => {
    qemu = rig.attach(rig.device.pfEndpoint, {});
    glue = rig.attach(rig.device.pfEndpoint, AS_GLUE);
    slot = rig.attach(rig.device.vfEndpoint(0, false), {});
    for (const { session } of [qemu, slot]) {
      session.receive(encodeFrame({ id: 9, command: Command.deviceReset, flags: 0 }), []);
    }
    rig.setVfEnable(qemu, 1);
    rig.settle();
    glue.told.length = 0;
  });

  const memory = () => rig.status().vfs[0]?.memory;
  /** What the glue hears of memory once it is quiet. */
  const told = () => {
    rig.clock.elapse(50);
    rig.settle();
    const messages = glue.told.splice(0);
    expect(messages.map(({ command }) => command)).toEqual([HotplugCommand.vfMemorySpace]);
    return messages.map(({ body }) => decodeVfMemorySpace(body));
  };
  const trapped = (generation: number) =>
    glue.send(
      HotplugCommand.vfsTrapped,
      encodeVfsTrapped({ generation, firstVf: 0, text: 'the glue has its reasons' }),
    );

  it('say of themselves how they are reached, and why', () => {
    expect(memory()).toBe('trapped: no carrier is laid over it yet');
    trapped(2);
    expect(memory()).toBe('trapped: no carrier is laid over it yet');
    trapped(1);
    expect(memory()).toBe('trapped: the glue has its reasons');
    rig.write16(slot, HEADER.command.offset, 0x2);
    rig.attach({ function: rig.device.carriers[0]!, native: false }, {});
    expect(memory()).toBe('mapped, by a carrier');
    rig.write16(slot, HEADER.command.offset, 0);
    expect(memory()).toMatch(/^neither mapped nor trapped: .* Memory Space Enable/);
  });

  it('wait for the next enable where the glue came after this one', () => {
    glue.session.close();
    expect(memory()).toBe('trapped: no glue is attached that would lay a carrier over it');
    glue = rig.attach(rig.device.pfEndpoint, AS_GLUE);
    expect(memory()).toBe(
      'trapped: the glue came after it was enabled, and learns of it at the next enable',
    );
    rig.clearVfEnable(qemu);
    rig.settle();
    rig.setVfEnable(qemu, 1);
    rig.settle();
    expect(memory()).toBe('trapped: no carrier is laid over it yet');
  });

  it('are trapped where nobody could lay a carrier, or the guest has their memory off', () => {
    rig.write16(qemu, Offset.sriov + SRIOV.control.offset, VF_ENABLE_WITHOUT_MEMORY);
    expect(memory()).toBe('trapped: VF Memory Space Enable is 0');
    rig.write16(qemu, Offset.sriov + SRIOV.control.offset, VF_ENABLE);
    glue.session.disconnected();
    expect(memory()).toBe('trapped: no glue is attached that would lay a carrier over it');
  });

  it('are plugged anew where the guest has moved the VF BARs while their memory was off, before that is on', () => {
    rig.write16(qemu, Offset.sriov + SRIOV.control.offset, VF_ENABLE_WITHOUT_MEMORY);
    rig.write16(qemu, Offset.sriov + SRIOV.vfBar0.offset + 2, 0x123);
    rig.settle();
    glue.told.length = 0;
    glue.answers = false;
    rig.write16(qemu, Offset.sriov + SRIOV.control.offset, VF_ENABLE);
    rig.settle();
    const messages = glue.told.splice(0);
    expect(messages.map(({ command }) => command)).toEqual([
      HotplugCommand.vfUnplug,
      HotplugCommand.vfPlug,
    ]);
    expect(decodeVfPlug(messages[1]!.body)).toMatchObject({
      generation: 1,
      bars: [{ address: 0x123_0000n }],
    });
    glue.answers = true;
    for (const message of messages) {
      glue.answer(message);
    }
    expect(told()).toEqual([{ generation: 1, enabled: true, silentVfs: [] }]);
    rig.write16(qemu, Offset.sriov + SRIOV.control.offset, VF_ENABLE_WITHOUT_MEMORY);
    rig.write16(qemu, Offset.sriov + SRIOV.control.offset, VF_ENABLE);
    rig.settle();
    expect(glue.told.map(({ command }) => command)).toEqual([
      HotplugCommand.vfMemorySpace,
      HotplugCommand.vfMemorySpace,
    ]);
  });

  it('have the glue look after their carriers when the guest has mapped a slot anew, once it is quiet', () => {
    rig.attach({ function: rig.device.carriers[0]!, native: false }, {});
    for (const command of [0x2, 0x400, 0x2, 0x400, 0x6]) {
      rig.write16(slot, HEADER.command.offset, command);
    }
    rig.settle();
    expect(glue.told).toEqual([]);
    expect(told()).toEqual([{ generation: 1, enabled: true, silentVfs: [] }]);
  });

  it('have the glue know whose slots do not answer', () => {
    rig.write16(slot, HEADER.command.offset, 0x2);
    rig.attach({ function: rig.device.carriers[0]!, native: false }, {});
    rig.write16(slot, HEADER.command.offset, 0);
    expect(told()).toEqual([{ generation: 1, enabled: true, silentVfs: [0] }]);
    rig.write16(slot, HEADER.command.offset, 0x2);
    expect(told()).toEqual([{ generation: 1, enabled: true, silentVfs: [] }]);
  });

  it('have the glue know so as well where the slot fell silent before its carrier came', () => {
    rig.write16(slot, HEADER.command.offset, 0);
    rig.attach({ function: rig.device.carriers[0]!, native: false }, {});
    expect(told()).toEqual([{ generation: 1, enabled: true, silentVfs: [0] }]);
  });
});

describe("the guest's write to VF Enable", () => {
  let qemu: Client;
  let glue: Client;
  beforeEach(() => {
    qemu = rig.attach(rig.device.pfEndpoint, {});
    qemu.send(Command.deviceReset, new Uint8Array(0));
    glue = rig.attach(rig.device.pfEndpoint, AS_GLUE);
    glue.answers = false;
    rig.write16(qemu, Offset.sriov + SRIOV.numVfs.offset, 2);
    qemu.connection.takeSent();
  });

  const enable = () => {
    const access = RegionAccess.encode({
      offset: BigInt(Offset.sriov + SRIOV.control.offset),
      region: RegionIndex.config,
      count: 2,
    });
    qemu.send(Command.regionWrite, Uint8Array.from([...access, VF_ENABLE, 0]));
  };
  const isAnswered = () => qemu.connection.sent.some(({ isReply }) => isReply);

  it('is answered when the glue has asked QEMU to pause the guest, not before', () => {
    enable();
    rig.settle();
    expect(isAnswered()).toBe(false);
    glue.answer(glue.told.find(({ command }) => command === HotplugCommand.enableBegin)!);
    expect(isAnswered()).toBe(true);
  });

  it('is answered at once where nobody pauses the guest', () => {
    glue.session.close();
    enable();
    expect(isAnswered()).toBe(true);
  });

  it('is answered when the glue goes', () => {
    enable();
    expect(isAnswered()).toBe(false);
    glue.session.close();
    expect(isAnswered()).toBe(true);
  });

  it('is answered after a tenth of a second whatever the glue does', () => {
    enable();
    rig.clock.elapse(99);
    expect(isAnswered()).toBe(false);
    rig.clock.elapse(1);
    expect(isAnswered()).toBe(true);
  });

  it('is followed by looks that are drawn out, where the guest looks before it is paused', () => {
    const slot = rig.attach(rig.device.vfEndpoint(0, false), {});
    slot.send(Command.deviceReset, new Uint8Array(0));
    const look = () => {
      slot.connection.takeSent();
      const access = {
        offset: BigInt(HEADER.headerType.offset),
        region: RegionIndex.config,
        count: 1,
      };
      return slot.send(Command.regionRead, RegionAccess.encode(access))?.body.at(-1);
    };
    enable();
    rig.settle();
    glue.answer(glue.told.find(({ command }) => command === HotplugCommand.enableBegin)!);
    expect(look()).toBeUndefined();
    rig.clock.elapse(20);
    expect(slot.connection.sent.at(-1)?.body.at(-1)).toBe(0);
    rig.clock.elapse(LIMITS.plugMilliseconds);
    rig.settle();
    expect(look()).toBe(0xff);
  });
});
