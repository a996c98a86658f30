// The device as a whole over a host that behaves as Linux does, with a glue's or a VMM's session in this process.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Offset } from '../../../backend/loopback/config.ts';
import { describeLoopback, openLoopbackFunction } from '../../../backend/loopback/device.ts';
import { HEADER } from '../../../backend/pci/spec/header.ts';
import { SRIOV } from '../../../backend/pci/spec/sriov.ts';
import { HANDLERS } from '../../../backend/server/handlers.ts';
import { Session } from '../../../backend/server/session.ts';
import { SriovDevice } from '../../../backend/server/sriov-device.ts';
import type { DeviceStatus } from '../../../backend/server/status.ts';
import {
  decodeEnableBegin,
  decodeVfPlug,
  decodeVfUnplug,
  encodeHotplugReply,
  HotplugCommand,
} from '../../../protocol/hotplug/codec.ts';
import { createEventFd } from '../../../protocol/unix/eventfd.ts';
import { Command, RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { encodeFrame } from '../../../protocol/vfio-user/framing.ts';
import { HeaderFlag, RegionAccess } from '../../../protocol/vfio-user/messages.ts';
import { type Capabilities, encodeVersion } from '../../../protocol/vfio-user/negotiation.ts';
import { KernelHost } from '../../fakes/kernel-host.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';
import { RecordingConnection, type SentFrame } from '../../fakes/recording-connection.ts';
import { RecordingFunction } from '../../fakes/recording-function.ts';
import { openFds } from '../protocol/unix/open-fds.ts';

const OPTIONS = { totalVfs: 4, vfBarSize: 16384, enableMilliseconds: 0 };
const LIMITS = { plugMilliseconds: 1000, unplugMilliseconds: 2000, retryMilliseconds: 500 };
const AS_VMM: Capabilities = { sriov_hotplug: { version: 1, role: 'vmm' } };
const AS_GLUE: Capabilities = { sriov_hotplug: { version: 1, role: 'glue' } };
const VMM = 'the VMM';
const VF_ENABLE = 0x9;

/** A client: its connection, and how it answers hot-plug commands. */
class Client {
  readonly connection = new RecordingConnection();
  readonly session: Session;
  readonly told: SentFrame[] = [];
  answers = true;
  onCommand: (frame: SentFrame) => void = () => {};

  constructor(endpoint: Session['endpoint'], capabilities: Capabilities) {
    this.session = new Session(this.connection, endpoint, HANDLERS, () => {});
    this.send(Command.version, encodeVersion(0, 1, capabilities));
  }

  send(command: number, body: Uint8Array): SentFrame | undefined {
    this.session.receive(encodeFrame({ id: 1, command, flags: 0 }, body), []);
    return this.connection.sent.filter(({ isReply }) => isReply).at(-1);
  }

  /** Takes what the server asked, and answers it. */
  turn(): void {
    for (const frame of this.connection.takeSent()) {
      if (frame.isReply) continue;
      this.told.push(frame);
      this.onCommand(frame);
      if (this.answers && !frame.noReply) this.answer(frame);
    }
  }

  answer(frame: SentFrame): void {
    const { vfIndex, generation } = subjectOf(frame);
    const reply = { vfIndex, generation, result: 'done', errno: 0, text: '' } as const;
    const head = { id: frame.id, command: frame.command, flags: HeaderFlag.reply };
    this.session.receive(encodeFrame(head, encodeHotplugReply(reply)), []);
  }
}

function subjectOf({ command, body }: SentFrame): { vfIndex: number; generation: number } {
  if (command === HotplugCommand.vfPlug) return decodeVfPlug(body);
  if (command === HotplugCommand.vfUnplug) return decodeVfUnplug(body);
  return { vfIndex: 0, generation: decodeEnableBegin(body).generation };
}

let before: number;
let host: KernelHost;
let clock: ManualClock;
let device: SriovDevice;
let clients: Client[];
let opened: RecordingFunction[];
let log: string[];

beforeEach(() => {
  before = openFds();
  host = new KernelHost();
  clock = new ManualClock();
  clients = [];
  opened = [];
  log = [];
  device = new SriovDevice({
    description: describeLoopback(OPTIONS),
    pf: { kind: 'loopback', index: -1, options: OPTIONS },
    limits: LIMITS,
    host,
    log: (level, message) => log.push(`${level}: ${message}`),
    openFunction(handle, generation, wires) {
      if (handle.kind !== 'loopback') throw new Error('this host has loopback functions only');
      const behind = openLoopbackFunction({ ...handle, options: OPTIONS }, generation, wires);
      opened.push(new RecordingFunction(behind));
      return opened.at(-1)!;
    },
    after: (milliseconds, callback) => clock.after(milliseconds, callback),
    connectVf: (endpoint) => ({
      session: attach(endpoint, {}).session,
      peerFd: createEventFd(),
    }),
    vfSocketPath: (vfIndex) => `vf${vfIndex}`,
    sessions: () => clients.map(({ session }) => session),
  });
});
afterEach(() => {
  for (const { session } of clients) session.close();
  settle();
  for (const vf of device.vfs) vf.takeDown();
  opened[0]!.close();
  expect(host.everStuck).toBe(false);
  expect(openFds()).toBe(before);
});

function attach(endpoint: Session['endpoint'], capabilities: Capabilities): Client {
  const client = new Client(endpoint, capabilities);
  clients.push(client);
  return client;
}

/** Until nobody has anything left to do but wait. */
function settle(): void {
  for (let round = 0; round < 6; round++) {
    host.settle();
    for (const client of [...clients]) client.turn();
  }
}

function write16(client: Client, offset: number, value: number): void {
  const access = RegionAccess.encode({
    offset: BigInt(offset),
    region: RegionIndex.config,
    count: 2,
  });
  const reply = client.send(
    Command.regionWrite,
    Uint8Array.from([...access, value & 0xff, value >>> 8]),
  );
  expect(reply?.error).toBe(0);
}

function setVfEnable(client: Client, numVfs: number): void {
  write16(client, Offset.sriov + SRIOV.numVfs.offset, numVfs);
  write16(client, Offset.sriov + SRIOV.control.offset, VF_ENABLE);
}

function clearVfEnable(client: Client): void {
  write16(client, Offset.sriov + SRIOV.control.offset, 0);
}

function status(): DeviceStatus {
  return JSON.parse(device.pfEndpoint.status!()) as DeviceStatus;
}

/** What a guest that looks for VF 0 reads as its header type: 0xff is how it learns that there is none. */
function headerType(vfIndex = 0): number {
  const byte = new Uint8Array(1);
  device.vfs[vfIndex]!.readRegion(RegionIndex.config, HEADER.headerType.offset, byte);
  return byte[0]!;
}

describe('a VMM that knows hot-plug', () => {
  let vmm: Client;
  beforeEach(() => {
    vmm = attach(device.pfEndpoint, AS_VMM);
    vmm.onCommand = (frame) => {
      if (frame.command === HotplugCommand.vfPlug) host.hold(subjectOf(frame).vfIndex, VMM);
      if (frame.command === HotplugCommand.vfUnplug) host.letGo(subjectOf(frame).vfIndex, VMM);
    };
  });

  it('has VFs from when the guest enables them to when it disables them', () => {
    setVfEnable(vmm, 2);
    settle();
    expect(status()).toMatchObject({ phase: 'enabled', numVfs: 2, generation: 1, hotplug: 'vmm' });
    expect(status().vfs.map(({ state, holder }) => [state, holder])).toEqual([
      ['up', 'vmm'],
      ['up', 'vmm'],
      ['absent', null],
      ['absent', null],
    ]);
    clearVfEnable(vmm);
    settle();
    expect(status()).toMatchObject({ phase: 'disabled', failure: null, quarantine: [] });
    expect(host.count).toBe(0);
  });

  it('leaves nothing open here after twenty rounds', () => {
    const open = openFds();
    for (let round = 0; round < 20; round++) {
      setVfEnable(vmm, 4);
      settle();
      clearVfEnable(vmm);
      settle();
    }
    expect(openFds()).toBe(open);
    expect(opened.filter(({ isClosed }) => isClosed)).toHaveLength(80);
  });

  it('that keeps a mapping puts the VFs into a quarantine that the status shows, and that ends by itself', () => {
    vmm.onCommand = (frame) => {
      if (frame.command === HotplugCommand.vfPlug) host.hold(subjectOf(frame).vfIndex, 'vt (262)');
    };
    setVfEnable(vmm, 2);
    settle();
    clearVfEnable(vmm);
    settle();
    expect(status().quarantine).toEqual([
      { vfIndex: 0, holder: 'vt (262)' },
      { vfIndex: 1, holder: 'vt (262)' },
    ]);
    expect(status().vfs[1]).toMatchObject({ state: 'absent', holder: 'vt (262)' });
    setVfEnable(vmm, 1);
    settle();
    expect(log.at(-1)).toMatch(/VF Enable failed: .*VF 0 is held by vt/);
    clearVfEnable(vmm);
    for (const vfIndex of [0, 1]) host.letGo(vfIndex, 'vt (262)');
    clock.elapse(LIMITS.retryMilliseconds);
    settle();
    expect(status()).toMatchObject({ phase: 'disabled', quarantine: [] });
    expect(host.count).toBe(0);
  });

  it('that dies takes its VFs with it, once its files are closed', () => {
    setVfEnable(vmm, 2);
    settle();
    for (const vfIndex of [0, 1]) host.letGo(vfIndex, VMM);
    vmm.session.disconnected();
    settle();
    expect(status()).toMatchObject({ phase: 'disabled', vfEnable: false, hotplug: null });
    expect(host.count).toBe(0);
  });

  it('that resets the PF loses its VFs, for that reason', () => {
    setVfEnable(vmm, 1);
    settle();
    vmm.send(Command.deviceReset, new Uint8Array(0));
    vmm.turn();
    settle();
    const unplug = vmm.told.find(({ command }) => command === HotplugCommand.vfUnplug);
    expect(decodeVfUnplug(unplug!.body).reason).toBe('pfReset');
    expect(status()).toMatchObject({ phase: 'disabled', numVfs: 0 });
  });

  it('can answer VfUnplug while its own DEVICE_RESET is unanswered, which is what the reset may wait for', () => {
    setVfEnable(vmm, 1);
    settle();
    opened[0]!.isSlow = true;
    vmm.session.receive(encodeFrame({ id: 5, command: Command.deviceReset, flags: 0 }), []);
    settle();
    expect(status().phase).toBe('disabled');
    opened[0]!.finish();
    expect(vmm.connection.takeSent()).toMatchObject([{ id: 5, error: 0 }]);
  });

  it('finds the enable failed when a VF cannot be wired up, and none of them left', () => {
    const line = createEventFd();
    device.vfs[1]!.attach({ knowsHotplug: true });
    device.vfs[1]!.setIrqs({ index: 2, start: 0, count: 1, flags: 0x24, eventFds: [line] });
    const { push } = opened;
    opened.push = (each) => {
      each.refusesIrqs = true;
      return push.call(opened, each);
    };
    setVfEnable(vmm, 2);
    settle();
    opened.push = push;
    expect(status()).toMatchObject({
      phase: 'disabled',
      failure: expect.stringMatching(/VFIO_DEVICE_SET_IRQS/),
    });
    expect(headerType(1)).toBe(0xff);
    expect(host.count).toBe(0);
    device.vfs[1]!.detach();
  });
});

describe('a VM with slots', () => {
  let qemu: Client;
  let glue: Client;
  beforeEach(() => {
    qemu = attach(device.pfEndpoint, {});
    glue = attach(device.pfEndpoint, AS_GLUE);
    for (const { index } of device.vfs) attach(device.vfEndpoint(index, false), {});
    for (const { session } of clients.filter((client) => client !== glue)) {
      session.receive(encodeFrame({ id: 9, command: Command.deviceReset, flags: 0 }), []);
    }
    settle();
  });

  it('has VFs when the glue has placed all of them', () => {
    glue.answers = false;
    setVfEnable(qemu, 2);
    settle();
    expect(status().phase).toBe('plugging');
    expect(status().vfs[0]?.state).toBe('coming-up');
    for (const frame of glue.told.splice(0)) if (!frame.noReply) glue.answer(frame);
    settle();
    expect(status().vfs.slice(0, 2)).toMatchObject([
      { state: 'up', holder: 'guest' },
      { state: 'up', holder: 'guest' },
    ]);
  });

  it('has its glue place them while the host still makes them', () => {
    glue.answers = false;
    setVfEnable(qemu, 2);
    glue.turn();
    expect(status().phase).toBe('creating');
    const { enableBegin, vfPlug, enableEnd } = HotplugCommand;
    const told = glue.told.splice(0);
    expect(told.map(({ command }) => command)).toEqual([enableBegin, vfPlug, vfPlug]);
    for (const frame of told) glue.answer(frame);
    settle();
    expect(glue.told.map(({ command }) => command)).toEqual([enableEnd]);
    expect(status().phase).toBe('enabled');
  });

  it('has none where no glue is attached: the guest sees it, and the log says what to start', () => {
    glue.session.disconnected();
    setVfEnable(qemu, 2);
    settle();
    expect(headerType()).toBe(0xff);
    expect(host.asked).toEqual([]);
    expect(status().failure).toMatch(/attach-qemu/);
    expect(log.at(-1)).toMatch(/warn: VF Enable failed: .*attach-qemu/);
  });

  it.each([
    ['PF', () => device.pf],
    ['VF', () => device.vfs[1]!],
  ])('has none where the host could not reach the guest’s memory for a %s', (_which, of) => {
    of().failedMaps.push('guest memory 0x0+0x1000 could not be mapped: ENOMEM');
    setVfEnable(qemu, 1);
    settle();
    expect(headerType()).toBe(0xff);
    expect(status().failure).toMatch(/ENOMEM/);
  });

  it('looks the same in all ways when NumVFs is more than there are: nothing is enabled', () => {
    setVfEnable(qemu, 5);
    settle();
    expect(status()).toMatchObject({ phase: 'disabled', vfEnable: false });
    expect(host.asked).toEqual([]);
  });

  it('is told that an enable failed when its glue goes in the middle, and the next glue starts afresh', () => {
    setVfEnable(qemu, 2);
    glue.session.disconnected();
    const next = attach(device.pfEndpoint, AS_GLUE);
    settle();
    expect(next.told).toEqual([]);
    expect(headerType()).toBe(0xff);
    expect(status()).toMatchObject({
      phase: 'disabled',
      failure: expect.stringMatching(/disconn/),
    });
    clearVfEnable(qemu);
    setVfEnable(qemu, 2);
    settle();
    expect(status()).toMatchObject({ phase: 'enabled', generation: 2 });
  });

  it('goes on when a VF that the kernel wants back takes the others with it', () => {
    setVfEnable(qemu, 2);
    settle();
    device.vfLost(1);
    settle();
    expect(status()).toMatchObject({
      phase: 'disabled',
      failure: expect.stringMatching(/wants VF 1 back/),
    });
    expect(headerType()).toBe(0xff);
  });
});

describe('shutting down', () => {
  let vmm: Client;
  let isDone: boolean;
  beforeEach(() => {
    isDone = false;
    vmm = attach(device.pfEndpoint, AS_VMM);
  });
  const shutDown = (): void =>
    device.shutDown(() => {
      isDone = true;
    });

  it('is done at once where there are no VFs', () => {
    shutDown();
    expect(isDone).toBe(true);
  });

  it('takes the VFs away first', () => {
    setVfEnable(vmm, 2);
    settle();
    shutDown();
    expect(isDone).toBe(false);
    settle();
    expect(isDone).toBe(true);
    expect(host.count).toBe(0);
  });

  it('leaves VFs that somebody holds to the host, rather than wait for ever', () => {
    vmm.onCommand = (frame) => {
      if (frame.command === HotplugCommand.vfPlug) host.hold(subjectOf(frame).vfIndex, VMM);
    };
    setVfEnable(vmm, 1);
    settle();
    shutDown();
    settle();
    expect(isDone).toBe(true);
    expect(host.count).toBe(1);
    host.letGo(0, VMM);
  });

  it('waits for a VMM that does not answer no longer than its deadline', () => {
    setVfEnable(vmm, 1);
    settle();
    vmm.answers = false;
    shutDown();
    settle();
    expect(isDone).toBe(false);
    clock.elapse(LIMITS.unplugMilliseconds);
    settle();
    expect(isDone).toBe(true);
  });

  it('is not held up by a guest that enables VFs again and again', () => {
    setVfEnable(vmm, 1);
    settle();
    shutDown();
    for (let round = 0; round < 5; round++) {
      clearVfEnable(vmm);
      setVfEnable(vmm, 2);
      settle();
    }
    expect(isDone).toBe(true);
    expect(host.asked.filter((name) => name === 'createVfs')).toHaveLength(1);
  });
});

describe("the guest's write to VF Enable", () => {
  let qemu: Client;
  let glue: Client;
  beforeEach(() => {
    qemu = attach(device.pfEndpoint, {});
    qemu.send(Command.deviceReset, new Uint8Array(0));
    glue = attach(device.pfEndpoint, AS_GLUE);
    glue.answers = false;
    write16(qemu, Offset.sriov + SRIOV.numVfs.offset, 2);
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
    settle();
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
    clock.elapse(99);
    expect(isAnswered()).toBe(false);
    clock.elapse(1);
    expect(isAnswered()).toBe(true);
  });

  it('is followed by looks that are drawn out, where the guest looks before it is paused', () => {
    const slot = attach(device.vfEndpoint(0, false), {});
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
    settle();
    expect(look()).toBe(0xff);
    glue.answer(glue.told.find(({ command }) => command === HotplugCommand.enableBegin)!);
    expect(look()).toBeUndefined();
    clock.elapse(20);
    expect(slot.connection.sent.at(-1)?.body.at(-1)).toBe(0);
    clock.elapse(LIMITS.plugMilliseconds);
    settle();
    expect(look()).toBe(0xff);
  });
});
