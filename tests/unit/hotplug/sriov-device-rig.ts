// A device over a host that behaves as Linux does, with the sessions of a glue, a VMM or slots in this process: for the
// tests of the device as a whole.
import { expect } from 'vitest';
import { PF_INDEX } from '../../../backend/device/physical-device.ts';
import { Offset } from '../../../backend/devices/kit/capabilities.ts';
import { SriovDevice } from '../../../backend/hotplug/sriov-device.ts';
import { HEADER } from '../../../backend/pci/spec/header.ts';
import { SRIOV } from '../../../backend/pci/spec/sriov.ts';
import { HANDLERS } from '../../../backend/server/handlers.ts';
import { Session } from '../../../backend/server/session.ts';
import {
  decodeEnableBegin,
  decodeVfMemorySpace,
  decodeVfPlug,
  decodeVfUnplug,
  encodeHotplugReply,
} from '../../../protocol/hotplug/codec.ts';
import { HotplugCommand } from '../../../protocol/hotplug/commands.ts';
import type { DeviceStatus } from '../../../protocol/hotplug/status.ts';
import { logInto, SILENT } from '../../../protocol/log.ts';
import { createEventFd } from '../../../protocol/unix/eventfd.ts';
import { Command, RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { encodeFrame } from '../../../protocol/vfio-user/framing.ts';
import { HeaderFlag, RegionAccess } from '../../../protocol/vfio-user/messages.ts';
import { type Capabilities, encodeVersion } from '../../../protocol/vfio-user/version.ts';
import { KernelHost } from '../../fakes/kernel-host.ts';
import { describeLoopback, openLoopbackFunction } from '../../fakes/loopback.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';
import { RecordingConnection, type SentFrame } from '../../fakes/recording-connection.ts';
import { RecordingFunction } from '../../fakes/recording-function.ts';
import { openFds } from '../protocol/unix/open-fds.ts';

const OPTIONS = { totalVfs: 4, vfBarSize: 16384, enableMilliseconds: 0 };
export const LIMITS = { plugMilliseconds: 1000, unplugMilliseconds: 2000, retryMilliseconds: 500 };
export const AS_VMM: Capabilities = { sriov_hotplug: { version: 1, role: 'vmm' } };
export const AS_GLUE: Capabilities = { sriov_hotplug: { version: 1, role: 'glue' } };
export const VMM = 'the VMM';
export const VF_ENABLE = 0x9;

/** A client: its connection, and how it answers hot-plug commands. */
export class Client {
  readonly connection = new RecordingConnection();
  readonly session: Session;
  readonly told: SentFrame[] = [];
  answers = true;
  onCommand: (frame: SentFrame) => void = () => {};

  constructor(endpoint: Session['endpoint'], capabilities: Capabilities) {
    this.session = new Session(this.connection, endpoint, HANDLERS, SILENT, new ManualClock());
    this.send(Command.version, encodeVersion(0, 1, capabilities));
  }

  send(command: number, body: Uint8Array): SentFrame | undefined {
    this.session.receive(encodeFrame({ id: 1, command, flags: 0 }, body), []);
    return this.connection.sent.filter(({ isReply }) => isReply).at(-1);
  }

  /** Takes what the server asked, and answers it. */
  turn(): void {
    for (const frame of this.connection.takeSent()) {
      if (frame.isReply) {
        continue;
      }
      this.told.push(frame);
      this.onCommand(frame);
      if (this.answers && !frame.noReply) {
        this.answer(frame);
      }
    }
  }

  answer(frame: SentFrame): void {
    const { vfIndex, generation } = subjectOf(frame);
    const reply = { vfIndex, generation, result: 'done', errno: 0, text: '' } as const;
    const head = { id: frame.id, command: frame.command, flags: HeaderFlag.reply };
    this.session.receive(encodeFrame(head, encodeHotplugReply(reply)), []);
  }
}

/** The VF and the generation that a hot-plug command is about; VF 0 for those that are about all. */
export function subjectOf({ command, body }: SentFrame): { vfIndex: number; generation: number } {
  if (command === HotplugCommand.vfPlug) {
    return decodeVfPlug(body);
  }
  if (command === HotplugCommand.vfUnplug) {
    return decodeVfUnplug(body);
  }
  if (command === HotplugCommand.vfMemorySpace) {
    return { vfIndex: 0, generation: decodeVfMemorySpace(body).generation };
  }
  return { vfIndex: 0, generation: decodeEnableBegin(body).generation };
}

export class SriovDeviceRig {
  readonly host = new KernelHost();
  readonly clock = new ManualClock();
  readonly clients: Client[] = [];
  /** Functions in the order in which they were opened: the PF first. */
  readonly opened: RecordingFunction[] = [];
  readonly log: string[] = [];
  readonly device: SriovDevice;
  readonly #fdsBefore = openFds();

  constructor() {
    this.device = new SriovDevice({
      description: describeLoopback(OPTIONS),
      pf: { index: PF_INDEX },
      limits: LIMITS,
      host: this.host,
      log: logInto((level, message) => this.log.push(`${level}: ${message}`)),
      openFunction: (handle, generation, wires) => {
        const behind = openLoopbackFunction({ ...handle, options: OPTIONS }, generation, wires);
        const recording = new RecordingFunction(behind);
        this.opened.push(recording);
        return recording;
      },
      clock: this.clock,
      connectVf: (endpoint) => ({
        session: this.attach(endpoint, {}).session,
        peerFd: createEventFd(),
      }),
      vfSocketPath: (vfIndex) => `vf${vfIndex}`,
      carrierSocketPath: (vfIndex) => `carrier${vfIndex}`,
      sessions: () => this.clients.map(({ session }) => session),
    });
  }

  /** Closes everything; nothing may have got stuck in the kernel, and no fd may be left. */
  end(): void {
    for (const { session } of this.clients) {
      session.close();
    }
    this.settle();
    for (const vf of this.device.vfs) {
      vf.takeDown();
    }
    this.opened[0]!.close();
    expect(this.host.everStuck).toBe(false);
    expect(openFds()).toBe(this.#fdsBefore);
  }

  attach(endpoint: Session['endpoint'], capabilities: Capabilities): Client {
    const client = new Client(endpoint, capabilities);
    this.clients.push(client);
    return client;
  }

  /** Until nobody has anything left to do but wait. */
  settle(): void {
    for (let round = 0; round < 6; round++) {
      this.host.settle();
      for (const client of [...this.clients]) {
        client.turn();
      }
    }
  }

  write16(client: Client, offset: number, value: number): void {
    const access = RegionAccess.encode({
      offset: BigInt(offset),
      region: RegionIndex.config,
      count: 2,
    });
    const data = [value & 0xff, value >>> 8];
    const reply = client.send(Command.regionWrite, Uint8Array.from([...access, ...data]));
    expect(reply?.error).toBe(0);
  }

  setVfEnable(client: Client, numVfs: number): void {
    this.write16(client, Offset.sriov + SRIOV.numVfs.offset, numVfs);
    this.write16(client, Offset.sriov + SRIOV.control.offset, VF_ENABLE);
  }

  clearVfEnable(client: Client): void {
    this.write16(client, Offset.sriov + SRIOV.control.offset, 0);
  }

  status(): DeviceStatus {
    return JSON.parse(this.device.pfEndpoint.status!()) as DeviceStatus;
  }

  /** What a guest that looks for a VF reads as its header type: 0xff is how it learns that there is none. */
  headerType(vfIndex = 0): number {
    const byte = new Uint8Array(1);
    this.device.vfs[vfIndex]!.readRegion(RegionIndex.config, HEADER.headerType.offset, byte);
    return byte[0]!;
  }
}
