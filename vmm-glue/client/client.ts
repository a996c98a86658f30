// A vfio-user client: what a VMM, a test bench or a tool needs to use a device that another process serves. Speaks
// to any vfio-user server of version 0.x; the hot-plug extension only where it was asked for and granted.

import type { Clock } from '../../protocol/clock.ts';
import { Errno, WireError } from '../../protocol/errno.ts';
import {
  decodeSlots,
  encodeGetSlots,
  encodeGlueEvents,
  encodeVfsTrapped,
} from '../../protocol/hotplug/codec.ts';
import { HotplugCommand } from '../../protocol/hotplug/commands.ts';
import type { GlueEvents, Slot, VfsTrapped } from '../../protocol/hotplug/messages.ts';
import { decodeRegionChanged } from '../../protocol/hotplug/region-changed.ts';
import type { DeviceStatus, FaultsAnswer, FaultsRequest } from '../../protocol/hotplug/status.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { Command } from '../../protocol/vfio-user/commands.ts';
import {
  DeviceInfo,
  DmaFlag,
  DmaMap,
  DmaUnmap,
  IrqInfo,
  IrqSet,
  IrqSetFlag,
  UnmapFlag,
} from '../../protocol/vfio-user/messages.ts';
import { type AgreedCapabilities, acceptVersion } from '../../protocol/vfio-user/negotiation.ts';
import {
  type Capabilities,
  encodeVersion,
  parseVersion,
} from '../../protocol/vfio-user/version.ts';
import { Connection, closeAll, type IncomingCommand, type Reply } from './connection.ts';
import { ServerProtocolError } from './connection-errors.ts';
import { DmaServer, type MessageDma } from './dma-server.ts';
import { type HotplugEvent, HotplugEvents } from './hotplug.ts';
import type { Interrupt } from './interrupts.ts';
import type { MappedArea } from './memory.ts';
import {
  mapAreas,
  type RegionDescription,
  type RegionWrite,
  readBytes,
  readRegionInfo,
  regionWriteBody,
  writeBytes,
  writeMulti,
} from './regions.ts';
import type { Transport } from './transport.ts';
import { UnixTransport } from './unix-transport.ts';

/** How a connection is made; everything has a default. */
export interface ClientOptions {
  /** Proposed in VERSION over the defaults; `sriov_hotplug: {version: 1, role: 'vmm'}` asks for hot-plug. */
  readonly capabilities?: Capabilities;
  /** Proposed version, 0.1 by default. */
  readonly version?: { readonly major: number; readonly minor: number };
  /** Limit for each reply, 30 s by default; 0 waits without end. */
  readonly replyTimeoutMilliseconds?: number;
  /** What that is measured by; the process's own unless told otherwise. */
  readonly clock?: Clock;
  /**
   * Called when what can be mapped of a region has changed, with its index: what was mapped of it must not be used any more
   * when this returns or resolves; `mapRegion` gives what there is now. Setting it proposes `region_changed`.
   */
  readonly onRegionChanged?: (index: number) => void | Promise<void>;
  /** Serves the server's DMA_READ and DMA_WRITE messages, for memory that is not shared by an fd. */
  readonly messageDma?: MessageDma;
}

/** One DMA_MAP; addresses and sizes in bytes on the guest's bus. Without `fd` the server can only note the range. */
export interface DmaMapping {
  readonly address: bigint;
  readonly size: bigint;
  readonly fd?: number;
  readonly fileOffset?: bigint;
  /** Default: both. */
  readonly read?: boolean;
  readonly write?: boolean;
}

const DEFAULT_CAPABILITIES = { max_msg_fds: 16, max_data_xfer_size: 1024 * 1024 };
/** Room for everything in a message that is not bulk data. */
const MESSAGE_OVERHEAD = 64 * 1024;
const MAX_FDS = 64;
const DEFAULT_REPLY_TIMEOUT = 30_000;

export class VfioUserClient implements Disposable {
  #agreed: AgreedCapabilities | undefined;
  readonly #connection: Connection;
  readonly #events: HotplugEvents;
  readonly #dma: DmaServer;
  readonly #askedForHotplug: boolean;
  readonly #onRegionChanged: ClientOptions['onRegionChanged'];
  #slotsMoved: (() => void) | undefined;
  #haveSlotsMoved = false;

  /** Connects to a unix socket and negotiates. Rejects with SyscallError, RemoteError or ConnectionClosedError. */
  static async connect(path: string, options: ClientOptions = {}): Promise<VfioUserClient> {
    return VfioUserClient.over(UnixTransport.connect(path, options.clock), options);
  }

  /** Takes over a connected socket, such as a VfPlug event's, and negotiates. */
  static async adopt(fd: number, options: ClientOptions = {}): Promise<VfioUserClient> {
    return VfioUserClient.over(new UnixTransport(fd, options.clock), options);
  }

  /** Negotiates over any transport, which is closed when that fails. */
  static async over(transport: Transport, options: ClientOptions = {}): Promise<VfioUserClient> {
    const client = new VfioUserClient(transport, options);
    try {
      await client.#negotiate(options);
    } catch (error) {
      client.close();
      throw error;
    }
    return client;
  }

  private constructor(transport: Transport, options: ClientOptions) {
    this.#dma = new DmaServer(options.messageDma);
    const hotplug = options.capabilities?.sriov_hotplug;
    this.#askedForHotplug = hotplug !== undefined;
    this.#onRegionChanged = options.onRegionChanged;
    this.#events = new HotplugEvents(hotplug?.role === 'glue' ? 'glue' : 'vmm', () => this.close());
    const { max_data_xfer_size: most } = { ...DEFAULT_CAPABILITIES, ...options.capabilities };
    this.#connection = new Connection(transport, {
      maxMessageBytes: Math.max(most, DEFAULT_CAPABILITIES.max_data_xfer_size) + MESSAGE_OVERHEAD,
      maxFds: MAX_FDS,
      replyTimeoutMilliseconds: options.replyTimeoutMilliseconds ?? DEFAULT_REPLY_TIMEOUT,
      clock: options.clock ?? processClock,
      onCommand: (command) => this.#handle(command),
    });
    void this.#connection.closed.then(() => this.#events.end());
  }

  /** Resolves when the connection has ended: with the reason, or undefined after `close()`. Never rejects. */
  get closed(): Promise<Error | undefined> {
    return this.#connection.closed;
  }

  get isOpen(): boolean {
    return this.#connection.isOpen;
  }

  get carriesFds(): boolean {
    return this.#connection.carriesFds;
  }

  /** What both sides go by since the handshake: version, limits, extensions. */
  get agreed(): AgreedCapabilities {
    if (this.#agreed === undefined) {
      throw new Error('vfio-user client: nothing is agreed before the handshake is over');
    }
    return this.#agreed;
  }

  /** Any command with any body. Rejects with RemoteError where the server answers an error. */
  call(command: number, body?: Uint8Array, fds?: readonly number[]): Promise<Reply> {
    return this.#connection.call(command, body, fds);
  }

  /** Any command, sent with No_reply. */
  post(command: number, body?: Uint8Array, fds?: readonly number[]): void {
    this.#connection.post(command, body, fds);
  }

  /** Bytes as they are, for tests of what a well-behaved client would never send. */
  sendRaw(bytes: Uint8Array, fds?: readonly number[]): void {
    this.#connection.sendRaw(bytes, fds);
  }

  close(): void {
    this.#connection.close();
  }

  /** `using` closes it at the end of its block. */
  [Symbol.dispose](): void {
    this.close();
  }

  async deviceInfo(): Promise<{ flags: number; numRegions: number; numIrqs: number }> {
    const request = { argsz: DeviceInfo.size, flags: 0, numRegions: 0, numIrqs: 0 };
    const body = await this.#connection.callPlain(
      Command.deviceGetInfo,
      DeviceInfo.encode(request),
    );
    return DeviceInfo.decode(body);
  }

  /** What the server says of a region; the reply's fd, if any, is the caller's. Asks twice where the reply is long. */
  regionInfo(index: number): Promise<RegionDescription> {
    return readRegionInfo(this.#connection, index);
  }

  /** Maps the parts of a region that the server allows; empty where it allows none. Close each when done. */
  async mapRegion(index: number): Promise<MappedArea[]> {
    const { info, fd } = await this.regionInfo(index);
    return fd === undefined ? [] : mapAreas(index, info, fd);
  }

  async irqInfo(index: number): Promise<{ flags: number; count: number }> {
    const request = { argsz: IrqInfo.size, flags: 0, index, count: 0 };
    const body = await this.#connection.callPlain(
      Command.deviceGetIrqInfo,
      IrqInfo.encode(request),
    );
    return IrqInfo.decode(body);
  }

  /** Reads bytes of a region, in pieces where the server's limit asks for it. */
  async readRegion(region: number, offset: number, count: number): Promise<Uint8Array> {
    return readBytes(this.#connection, { region, offset, count }, this.agreed.maxDataXferSize);
  }

  /** Writes bytes to a region and waits until the server has done so. */
  async writeRegion(region: number, offset: number, bytes: Uint8Array): Promise<void> {
    return writeBytes(this.#connection, { region, offset, bytes }, this.agreed.maxDataXferSize);
  }

  /**
   * Writes bytes to a region without waiting; every later call is carried out after it. Throws RangeError for more than
   * `agreed.maxDataXferSize` bytes, at which a server ends the connection.
   */
  postRegionWrite(region: number, offset: number, bytes: Uint8Array): void {
    const most = this.agreed.maxDataXferSize;
    if (bytes.length > most) {
      throw new RangeError(
        `REGION_WRITE of ${bytes.length} bytes: this server takes ${most} in one message; use writeRegion, which sends several`,
      );
    }
    this.post(Command.regionWrite, regionWriteBody({ region, offset, bytes }));
  }

  /** Several small writes (1 to 8 bytes each) in one message; gives how many were done. Needs `write_multiple`. */
  writeRegionMulti(writes: readonly RegionWrite[]): Promise<number> {
    return writeMulti(this.#connection, writes);
  }

  /** Gives the device a piece of guest memory. The fd stays the caller's. */
  async mapDma(mapping: DmaMapping): Promise<void> {
    const { address, size, fd, fileOffset = 0n, read = true, write = true } = mapping;
    const flags = (read ? DmaFlag.read : 0) | (write ? DmaFlag.write : 0);
    const body = DmaMap.encode({ argsz: DmaMap.size, flags, offset: fileOffset, address, size });
    await this.#connection.callPlain(Command.dmaMap, body, fd === undefined ? [] : [fd]);
  }

  /** Takes it away again; the server has dropped every reference when this resolves. */
  async unmapDma(address: bigint, size: bigint): Promise<void> {
    const body = DmaUnmap.encode({ argsz: DmaUnmap.size, flags: 0, address, size });
    await this.#connection.callPlain(Command.dmaUnmap, body);
  }

  async unmapAllDma(): Promise<void> {
    const body = DmaUnmap.encode({
      argsz: DmaUnmap.size,
      flags: UnmapFlag.all,
      address: 0n,
      size: 0n,
    });
    await this.#connection.callPlain(Command.dmaUnmap, body);
  }

  /** SET_IRQS as it is; `flags` as in IrqSetFlag, `bools` one byte per interrupt with dataBool. */
  async setIrqs(
    request: { index: number; start: number; count: number; flags: number },
    bools: Uint8Array = new Uint8Array(0),
    fds: readonly number[] = [],
  ): Promise<void> {
    const argsz = IrqSet.size + bools.length;
    const body = IrqSet.encode({ argsz, ...request }, new Uint8Array(argsz));
    body.set(bools, IrqSet.size);
    await this.#connection.callPlain(Command.deviceSetIrqs, body, fds);
  }

  /** Binds interrupts to the vectors `start`, `start` + 1, ... of an index, which enables it. */
  async bindInterrupts(
    index: number,
    start: number,
    interrupts: readonly Interrupt[],
  ): Promise<void> {
    const flags = IrqSetFlag.dataEventFd | IrqSetFlag.actionTrigger;
    const step = Math.max(1, this.agreed.maxMsgFds);
    for (let at = 0; at < interrupts.length; at += step) {
      const fds = interrupts.slice(at, at + step).map((each) => each.fd);
      await this.setIrqs({ index, start: start + at, count: fds.length, flags }, undefined, fds);
    }
  }

  /** Takes the interrupts of `count` vectors away; the others of the index stay. */
  async unbindInterrupts(index: number, start: number, count: number): Promise<void> {
    const flags = IrqSetFlag.dataEventFd | IrqSetFlag.actionTrigger;
    await this.setIrqs({ index, start, count, flags });
  }

  /** Disables all interrupts of an index. */
  async disableInterrupts(index: number): Promise<void> {
    const flags = IrqSetFlag.dataNone | IrqSetFlag.actionTrigger;
    await this.setIrqs({ index, start: 0, count: 0, flags });
  }

  async reset(): Promise<void> {
    await this.#connection.callPlain(Command.deviceReset);
  }

  /** True where the server granted `sriov_hotplug`. */
  get hasHotplug(): boolean {
    return this.#agreed?.hotplug !== undefined;
  }

  /** The server's hot-plug announcements, from the connection's start on. Throws where they were not negotiated. */
  hotplugEvents(): AsyncIterable<HotplugEvent> {
    if (!this.hasHotplug) {
      throw new Error(
        'hot-plug: the server did not grant it; propose the capability sriov_hotplug, to a server that knows it',
      );
    }
    return this.#events;
  }

  /** The backend's status. Needs the capability `sriov_status: {version: 1}`. */
  async getStatus(): Promise<DeviceStatus> {
    const body = await this.#connection.callPlain(HotplugCommand.getStatus);
    return parseStatus(body);
  }

  /**
   * Has the backend record into a file from now on; the file's length bounds the recording. Needs `sriov_status`, as
   * `stopTrace` does. The fd stays the caller's. Rejects with RemoteError, such as EBUSY where one is made already.
   */
  async startTrace(fd: number): Promise<void> {
    await this.#connection.callPlain(HotplugCommand.traceStart, undefined, [fd]);
  }

  /** Has the backend record into a file for this client alone, until it closes. As `startTrace`; ENOSYS from older servers. */
  async watchTrace(fd: number): Promise<void> {
    await this.#connection.callPlain(HotplugCommand.traceWatch, undefined, [fd]);
  }

  async stopTrace(): Promise<void> {
    await this.#connection.callPlain(HotplugCommand.traceStop);
  }

  /** Arms or clears a fault, or only lists them; what is refused is in the answer. Needs `sriov_status`. */
  async faults(request: FaultsRequest = {}): Promise<FaultsAnswer> {
    const body = new TextEncoder().encode(JSON.stringify(request));
    return parseFaults(await this.#connection.callPlain(HotplugCommand.faults, body));
  }

  /** Tells the backend's trace what this glue did in its VMM; nothing where the connection has ended. */
  reportGlueEvents(events: GlueEvents): void {
    if (this.isOpen) {
      this.post(HotplugCommand.glueEvents, encodeGlueEvents(events));
    }
  }

  /** For a glue: called when slots of VFs that are off are not where they belong; at once where that has been told already. */
  whenSlotsMoved(callback: () => void): void {
    this.#slotsMoved = callback;
    if (this.#haveSlotsMoved) {
      callback();
    }
  }

  /** Where slots of VFs that are off belong; none where VFs are on. For a glue; ENOSYS from older servers. */
  async slots(firstVf: number, count: number): Promise<readonly Slot[]> {
    const asked = encodeGetSlots({ firstVf, count });
    return decodeSlots(await this.#connection.callPlain(HotplugCommand.getSlots, asked));
  }

  /** Tells the backend's status why this glue maps nothing of VFs; nothing where the connection has ended. */
  reportTrapped(message: VfsTrapped): void {
    if (this.isOpen) {
      this.post(HotplugCommand.vfsTrapped, encodeVfsTrapped(message));
    }
  }

  async #negotiate(options: ClientOptions): Promise<void> {
    const proposed = options.version ?? { major: 0, minor: 1 };
    const remapping = options.onRegionChanged && { region_changed: { version: 1 } };
    const wanted = { ...DEFAULT_CAPABILITIES, ...remapping, ...options.capabilities };
    const body = await this.#connection.callPlain(
      Command.version,
      encodeVersion(proposed.major, proposed.minor, wanted),
    );
    this.#agreed = acceptVersion({ ...proposed, capabilities: wanted }, parseVersion(body));
  }

  #handle(command: IncomingCommand): void {
    if (command.command === Command.dmaRead || command.command === Command.dmaWrite) {
      closeAll(command.fds);
      this.#dma.handle(command);
    } else if (command.command === HotplugCommand.slotsMoved) {
      closeAll(command.fds);
      this.#haveSlotsMoved = true;
      this.#slotsMoved?.();
    } else if (command.command === HotplugCommand.regionChanged) {
      closeAll(command.fds);
      void this.#regionChanged(command);
    } else if (this.#expectsHotplug(command)) {
      this.#events.accept(command);
    } else {
      closeAll(command.fds);
      command.fail(Errno.ENOSYS);
    }
  }

  async #regionChanged(command: IncomingCommand): Promise<void> {
    const remap = this.#onRegionChanged;
    if (remap === undefined || this.#agreed?.regionChanged === undefined) {
      command.fail(Errno.ENOSYS);
      return;
    }
    try {
      await remap(decodeRegionChanged(command.body));
      command.reply(new Uint8Array(0));
    } catch (error) {
      command.fail(error instanceof WireError ? error.errno : Errno.EIO);
    }
  }

  #expectsHotplug(command: IncomingCommand): boolean {
    // Before it is agreed upon, too: the first announcement may lie in the same chunk as the VERSION reply.
    const mayCome = this.#agreed === undefined ? this.#askedForHotplug : this.hasHotplug;
    return mayCome && command.command >= HotplugCommand.enableBegin;
  }
}

/** Checks as much as a later version must keep. Throws ServerProtocolError. */
function parseStatus(body: Uint8Array): DeviceStatus {
  let status: Partial<DeviceStatus> | null;
  try {
    status = JSON.parse(new TextDecoder().decode(body));
  } catch {
    status = null;
  }
  if (status?.version !== 1) {
    throw new ServerProtocolError('the reply is no status of version 1', 'GetStatus');
  }
  return status as DeviceStatus;
}

function parseFaults(body: Uint8Array): FaultsAnswer {
  let answer: Partial<FaultsAnswer> | null;
  try {
    answer = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    throw new ServerProtocolError('the reply is no JSON', 'Faults');
  }
  if (!Array.isArray(answer?.faults)) {
    throw new ServerProtocolError('the reply has no list of faults', 'Faults');
  }
  return answer as FaultsAnswer;
}
