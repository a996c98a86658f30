// What the hot-plug tests need of a guest and its VMM: the SR-IOV registers of a connected PF, VF Enable, and the
// backend's status as an observer sees it.

import { setTimeout as sleep } from 'node:timers/promises';
import { decodeVfPlug, decodeVfUnplug, encodeHotplugReply } from '../../protocol/hotplug/codec.ts';
import { HotplugCommand } from '../../protocol/hotplug/commands.ts';
import type { HotplugReply } from '../../protocol/hotplug/messages.ts';
import type { DeviceStatus } from '../../protocol/hotplug/status.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { Command } from '../../protocol/vfio-user/commands.ts';
import { HeaderFlag } from '../../protocol/vfio-user/messages.ts';
import type { Capabilities } from '../../protocol/vfio-user/version.ts';
import type { VfioUserClient } from '../../vmm-glue/client/client.ts';
import type { HotplugEvent } from '../../vmm-glue/client/hotplug.ts';
import { findCapabilities } from '../../vmm-glue/reference-vmm/capabilities.ts';
import { ClientConfig } from '../../vmm-glue/reference-vmm/config-access.ts';
import { ExtendedCapabilityId, Sriov, SriovBit } from '../../vmm-glue/reference-vmm/pci-offsets.ts';
import {
  ReferenceVmm,
  type ReferenceVmmOptions,
} from '../../vmm-glue/reference-vmm/reference-vmm.ts';
import type { RawPeer, ReceivedFrame } from './raw-peer.ts';
import type { TestBackend } from './test-backend.ts';

export const AS_VMM: Capabilities = { max_msg_fds: 16, sriov_hotplug: { version: 1, role: 'vmm' } };
export const AS_GLUE: Capabilities = {
  max_msg_fds: 16,
  sriov_hotplug: { version: 1, role: 'glue' },
};

/** Waits of the standard are passed at once: the backend's answers decide, not the clock. */
export const noWait = async (): Promise<void> => {};

/** The backend's status through a connection that does nothing else. */
export async function statusOf(backend: TestBackend): Promise<DeviceStatus> {
  const observer = await backend.connect({ capabilities: { sriov_status: { version: 1 } } });
  const status = await observer.getStatus();
  observer.close();
  return status;
}

/** Waits until the machine has reached a phase; throws after 10 s. */
export async function reachPhase(backend: TestBackend, phase: string): Promise<DeviceStatus> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    const status = await statusOf(backend);
    if (status.phase === phase) {
      return status;
    }
    if (Date.now() > deadline) {
      throw new Error(`phase: still ${status.phase}, wanted ${phase}; log:\n${backend.log}`);
    }
    await sleep(5);
  }
}

/** A reference VMM on the backend that does not wait. */
export function startVmm(
  backend: TestBackend,
  options: Partial<ReferenceVmmOptions> = {},
): Promise<ReferenceVmm> {
  return ReferenceVmm.start({
    pf: backend.pfTransport(),
    openPath: (path) => backend.openPath(path),
    wait: noWait,
    ...options,
  });
}

/** The SR-IOV registers of a client's PF. */
export class SriovRegisters {
  readonly #config: ClientConfig;
  readonly #base: number;

  static async of(client: VfioUserClient): Promise<SriovRegisters> {
    const config = new ClientConfig(client);
    const { extended } = await findCapabilities(config);
    const base = extended.get(ExtendedCapabilityId.sriov);
    if (base === undefined) {
      throw new Error('PF: it shows no SR-IOV capability');
    }
    return new SriovRegisters(config, base);
  }

  private constructor(config: ClientConfig, base: number) {
    this.#config = config;
    this.#base = base;
  }

  async enable(numVfs: number): Promise<void> {
    await this.#config.write(this.#base + Sriov.numVfs, 2, numVfs);
    const control = SriovBit.vfEnable | SriovBit.vfMemorySpaceEnable;
    await this.#config.write(this.#base + Sriov.control, 2, control);
  }

  async disable(): Promise<void> {
    await this.#config.write(this.#base + Sriov.control, 2, 0);
  }

  /** Gives VF BAR 0 an address, of which this is the upper half. */
  async moveVfs(high: number): Promise<void> {
    await this.#config.write(this.#base + Sriov.vfBar0 + 4, 4, high);
  }
}

/** The next `count` events of a client. */
export async function takeEvents(client: VfioUserClient, count: number): Promise<HotplugEvent[]> {
  const iterator = client.hotplugEvents()[Symbol.asyncIterator]();
  const events: HotplugEvent[] = [];
  while (events.length < count) {
    const { value, done } = await iterator.next();
    if (done === true) {
      throw new Error('hot-plug: the connection ended');
    }
    events.push(value);
  }
  return events;
}

/** Answers an event with done, whatever it is; the socket of a VF that comes with it is closed. */
export function agree(event: HotplugEvent | undefined): void {
  if (event?.kind === 'vfPlug') {
    dropSocket(event);
  }
  if (event !== undefined && event.kind !== 'enableEnd') {
    event.done();
  }
}

/** Closes the socket of a VF, if one came. */
export function dropSocket(event: HotplugEvent | undefined): void {
  const fd = event?.kind === 'vfPlug' ? event.takeFd() : undefined;
  if (fd !== undefined) {
    closeFd(fd);
  }
}

/** Answers every event of a client with done, as long as it is connected. */
export async function obey(client: VfioUserClient): Promise<void> {
  for await (const event of client.hotplugEvents()) {
    agree(event);
  }
}

const SRIOV_AT = 0x110;
const CONFIG_REGION = 7;

/** Sets NumVFs and VF Enable through a raw peer, and gives its VfPlug messages in order, unanswered. */
export async function enableThrough(peer: RawPeer, numVfs: number): Promise<ReceivedFrame[]> {
  await writeConfig(peer, SRIOV_AT + Sriov.numVfs, numVfs);
  const control = SriovBit.vfEnable | SriovBit.vfMemorySpaceEnable;
  await writeConfig(peer, SRIOV_AT + Sriov.control, control);
  return takeCommands(peer, HotplugCommand.vfPlug, numVfs);
}

/** Clears VF Enable through a raw peer, and gives its VfUnplug messages in order, unanswered. */
export async function disableThrough(peer: RawPeer, numVfs: number): Promise<ReceivedFrame[]> {
  await writeConfig(peer, SRIOV_AT + Sriov.control, 0);
  return takeCommands(peer, HotplugCommand.vfUnplug, numVfs);
}

/** Answers a VfPlug or VfUnplug with done, or with what `change` makes of that. */
export function answerDone(
  peer: RawPeer,
  { id, command, body }: ReceivedFrame,
  change: Partial<HotplugReply> = {},
): void {
  peer.send(command, doneReply(command, body, change), { id, flags: HeaderFlag.reply });
}

/** The body of that answer. */
export function doneReply(
  command: number,
  body: Uint8Array,
  change: Partial<HotplugReply> = {},
): Uint8Array {
  const decode = command === HotplugCommand.vfPlug ? decodeVfPlug : decodeVfUnplug;
  const { vfIndex, generation } = decode(body);
  return encodeHotplugReply({ vfIndex, generation, result: 'done', errno: 0, text: '', ...change });
}

/** The next `count` messages with this command; others are dropped. */
async function takeCommands(
  peer: RawPeer,
  command: number,
  count: number,
): Promise<ReceivedFrame[]> {
  const taken: ReceivedFrame[] = [];
  while (taken.length < count) {
    const frame = await peer.next();
    if (frame.command === command) {
      taken.push(frame);
    }
  }
  return taken;
}

/** Writes a config word without waiting for the answer, which is dropped by whoever waits for commands. */
async function writeConfig(peer: RawPeer, offset: number, value: number): Promise<void> {
  const body = new Uint8Array(18);
  const view = new DataView(body.buffer);
  view.setBigUint64(0, BigInt(offset), true);
  view.setUint32(8, CONFIG_REGION, true);
  view.setUint32(12, 2, true);
  view.setUint16(16, value, true);
  peer.send(Command.regionWrite, body);
}
