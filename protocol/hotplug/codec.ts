// Bodies of the hot-plug extension, to and from protobuf, checked both ways. Pure. README.md beside this file says
// what they mean. A body that is no protobuf is EPROTO, one whose values cannot be meant is EINVAL; unknown fields
// are skipped, so that later versions may add some.
import protobuf from 'protobufjs/light.js';
import { Errno, WireError } from '../errno.ts';
import { isSocketPath, MAX_SOCKET_PATH_BYTES } from '../launch/socket-names.ts';
import { hotplugSchema } from './schema.ts';

/** Command numbers in vfio-user headers; those from 0x8010 on go from client to server. */
export const HotplugCommand = {
  enableBegin: 0x8001,
  vfPlug: 0x8002,
  vfUnplug: 0x8003,
  enableEnd: 0x8004,
  vfMemorySpace: 0x8005,
  regionChanged: 0x8006,
  getStatus: 0x8010,
  traceStart: 0x8011,
  traceStop: 0x8012,
  glueEvents: 0x8013,
} as const;
export type HotplugCommand = (typeof HotplugCommand)[keyof typeof HotplugCommand];

/** The specification's name of a command: "VfPlug". */
export function hotplugName(command: number): string {
  const [name] = Object.entries(HotplugCommand).find(([, each]) => each === command) ?? [];
  return name === undefined
    ? `command 0x${command.toString(16)}`
    : `${name.charAt(0).toUpperCase()}${name.slice(1)}`;
}

/** The guest has set VF Enable. */
export interface EnableBegin {
  /** 1 for a server's first enable, and one more for each later one. */
  generation: number;
  numVfs: number;
  /** No VF will be up sooner, counted from this message. */
  readyAfterMilliseconds?: number | undefined;
}

/** One BAR of a VF, in memory space. */
export interface VfBar {
  index: number;
  /** Bytes, a power of two from 16. */
  size: bigint;
  is64Bit: boolean;
  prefetchable: boolean;
  /** Guest address that the SR-IOV capability gives this VF's BAR, modulo the BAR's width; 0 = not placed. */
  address: bigint;
}

/** `size` bytes of the VF's BAR `vfBar`, from `offset` on: the whole BAR `index` of its carrier, a 64-bit one. */
export interface CarrierBar {
  index: number;
  vfBar: number;
  offset: bigint;
  /** A power of two of at least a page; `offset` is a multiple of it. */
  size: bigint;
}

/** A function whose BARs are what may be mapped of a VF, for a VMM that has the VF in a slot. */
export interface Carrier {
  /** Where its vfio-user session is served. */
  socketPath: string;
  bars: CarrierBar[];
}

/** One VF is up; to a glue: is, or will be, there. */
export interface VfPlug {
  vfIndex: number;
  generation: number;
  /** Routing ID of the VF minus that of the PF, modulo 65536; never 0. */
  routingIdOffset: number;
  vendorId: number;
  deviceId: number;
  bars: VfBar[];
  msixVectors: number;
  /** Where the VF's session is served when no fd can be carried. */
  socketPath?: string | undefined;
  /** Slot mode: the VM's function was reset since it was last placed. Read as false when it is not there. */
  placementLost?: boolean | undefined;
  /** Slot mode: absent where nothing of the VF can be mapped. */
  carrier?: Carrier | undefined;
}

/** What a glue needs of it. */
export type VfPlacement = Pick<VfPlug, 'routingIdOffset' | 'bars' | 'placementLost'>;

/** 'unspecified' stands for every reason that this version does not know. */
export type UnplugReason = 'guestDisabled' | 'pfReset' | 'vfLost' | 'shuttingDown' | 'unspecified';

/** One VF goes. */
export interface VfUnplug {
  vfIndex: number;
  generation: number;
  deadlineMilliseconds: number;
  reason: UnplugReason;
}

/** The enable is over. */
export interface EnableEnd {
  generation: number;
  outcome: 'enabled' | 'failed';
  /** Why it failed, for people. */
  text: string;
}

/** The guest has written VF Memory Space Enable while it has VFs. */
export interface VfMemorySpace {
  /** Of the enable that the VFs are of. */
  generation: number;
  enabled: boolean;
}

/** The reply to EnableBegin (vfIndex 0), VfPlug, VfUnplug and VfMemorySpace (vfIndex 0). */
export interface HotplugReply {
  vfIndex: number;
  generation: number;
  result: 'done' | 'refused';
  /** Linux errno of a refusal, else 0. A refusal without one reads as EIO. */
  errno: number;
  text: string;
}

const reasons = {
  unspecified: 0,
  guestDisabled: 1,
  pfReset: 2,
  vfLost: 3,
  shuttingDown: 4,
} as const satisfies Record<UnplugReason, number>;
const outcomes = { enabled: 1, failed: 2 } as const;
const results = { done: 1, refused: 2 } as const;

/** What a glue did in its VMM; times are nanoseconds of CLOCK_MONOTONIC. */
export interface GlueEvent {
  /** `stop` and `cont` of the guest, `command` for everything else. */
  what: string;
  text: string;
  at: bigint;
  took: bigint;
}

export interface GlueEvents {
  events: GlueEvent[];
  /** Events that there were before these, and that are not told. */
  lost: number;
}

/** More in one message are refused. */
export const MAX_GLUE_EVENTS = 1024;
const MAX_GLUE_TEXT = 256;

/** Longest text that is sent or kept, in UTF-16 units. */
const MAX_TEXT = 1024;
const MAX_MSIX_VECTORS = 2048;
const PAGE_BYTES = 0x1000n;

const root = protobuf.Root.fromJSON(hotplugSchema);
const types = {
  EnableBegin: root.lookupType('EnableBegin'),
  VfPlug: root.lookupType('VfPlug'),
  VfUnplug: root.lookupType('VfUnplug'),
  EnableEnd: root.lookupType('EnableEnd'),
  VfMemorySpace: root.lookupType('VfMemorySpace'),
  HotplugReply: root.lookupType('HotplugReply'),
  GlueEvents: root.lookupType('GlueEvents'),
};
type MessageName = keyof typeof types;

/** @throws WireError EINVAL when a value is out of range; so does every encoder here. */
export function encodeEnableBegin(message: EnableBegin): Uint8Array {
  checkEnableBegin(message);
  return encode('EnableBegin', { ...message });
}

interface EnableBeginOnWire extends EnableBegin {
  readyAfterMilliseconds: number;
}

/** @throws WireError EPROTO or EINVAL; so does every decoder here. */
export function decodeEnableBegin(bytes: Uint8Array): EnableBegin {
  const wire = decode<EnableBeginOnWire>('EnableBegin', bytes);
  const { generation, numVfs, readyAfterMilliseconds } = wire;
  const message: EnableBegin = { generation, numVfs };
  if (readyAfterMilliseconds > 0) {
    message.readyAfterMilliseconds = readyAfterMilliseconds;
  }
  checkEnableBegin(message);
  return message;
}

export function encodeVfPlug(message: VfPlug): Uint8Array {
  const bars = wrapped(message.bars);
  checkVfPlug({ ...message, bars });
  return encode('VfPlug', {
    ...message,
    bars: bars.map(toWire),
    ...(message.carrier === undefined ? {} : { carrier: carrierToWire(message.carrier) }),
  });
}

interface VfPlugOnWire extends Omit<VfPlug, 'bars' | 'carrier'> {
  bars: VfBarOnWire[];
  socketPath: string;
  placementLost: boolean;
  carrier: CarrierOnWire | null;
}

export function decodeVfPlug(bytes: Uint8Array): VfPlug {
  const wire = decode<VfPlugOnWire>('VfPlug', bytes);
  const message: VfPlug = {
    vfIndex: wire.vfIndex,
    generation: wire.generation,
    routingIdOffset: wire.routingIdOffset,
    vendorId: wire.vendorId,
    deviceId: wire.deviceId,
    bars: wire.bars.map(fromWire),
    msixVectors: wire.msixVectors,
    placementLost: wire.placementLost,
  };
  if (wire.socketPath !== '') {
    message.socketPath = wire.socketPath;
  }
  if (wire.carrier !== null) {
    message.carrier = carrierFromWire(wire.carrier);
  }
  checkVfPlug(message);
  return message;
}

export function encodeVfUnplug(message: VfUnplug): Uint8Array {
  checkVfUnplug(message);
  return encode('VfUnplug', { ...message, reason: reasons[message.reason] });
}

export function decodeVfUnplug(bytes: Uint8Array): VfUnplug {
  const wire = decode<Omit<VfUnplug, 'reason'> & { reason: number }>('VfUnplug', bytes);
  const message: VfUnplug = {
    vfIndex: wire.vfIndex,
    generation: wire.generation,
    deadlineMilliseconds: wire.deadlineMilliseconds,
    reason: keyOf(reasons, wire.reason) ?? 'unspecified',
  };
  checkVfUnplug(message);
  return message;
}

export function encodeEnableEnd(message: EnableEnd): Uint8Array {
  checkGeneration('EnableEnd', message.generation);
  const text = message.text.slice(0, MAX_TEXT);
  return encode('EnableEnd', { ...message, outcome: outcomes[message.outcome], text });
}

export function decodeEnableEnd(bytes: Uint8Array): EnableEnd {
  const wire = decode<Omit<EnableEnd, 'outcome'> & { outcome: number }>('EnableEnd', bytes);
  checkGeneration('EnableEnd', wire.generation);
  const outcome = keyOf(outcomes, wire.outcome) ?? unknown('EnableEnd', 'outcome', wire.outcome);
  return { generation: wire.generation, outcome, text: wire.text.slice(0, MAX_TEXT) };
}

export function encodeVfMemorySpace(message: VfMemorySpace): Uint8Array {
  checkGeneration('VfMemorySpace', message.generation);
  return encode('VfMemorySpace', message);
}

export function decodeVfMemorySpace(bytes: Uint8Array): VfMemorySpace {
  const { generation, enabled } = decode<VfMemorySpace>('VfMemorySpace', bytes);
  checkGeneration('VfMemorySpace', generation);
  return { generation, enabled };
}

export function encodeHotplugReply(message: HotplugReply): Uint8Array {
  checkHotplugReply(message);
  const text = message.text.slice(0, MAX_TEXT);
  return encode('HotplugReply', { ...message, result: results[message.result], text });
}

export function decodeHotplugReply(bytes: Uint8Array): HotplugReply {
  const wire = decode<Omit<HotplugReply, 'result'> & { result: number }>('HotplugReply', bytes);
  const result = keyOf(results, wire.result) ?? unknown('HotplugReply', 'result', wire.result);
  const message: HotplugReply = {
    vfIndex: wire.vfIndex,
    generation: wire.generation,
    result,
    errno: result === 'refused' ? wire.errno || Errno.EIO : 0,
    text: wire.text.slice(0, MAX_TEXT),
  };
  checkHotplugReply(message);
  return message;
}

export function encodeGlueEvents({ events, lost }: GlueEvents): Uint8Array {
  return encode('GlueEvents', {
    events: events.map(({ what, text, at, took }) => ({
      what: what.slice(0, MAX_GLUE_TEXT),
      text: text.slice(0, MAX_GLUE_TEXT),
      at: toLong(at),
      took: toLong(took),
    })),
    lost,
  });
}

export function decodeGlueEvents(bytes: Uint8Array): GlueEvents {
  const wire = decode<{
    events: { what: string; text: string; at: Long; took: Long }[];
    lost: number;
  }>('GlueEvents', bytes);
  if (wire.events.length > MAX_GLUE_EVENTS) {
    invalid(`GlueEvents holds ${wire.events.length} events: at most ${MAX_GLUE_EVENTS} are taken`);
  }
  return {
    events: wire.events.map(({ what, text, at, took }) => ({
      what: what.slice(0, MAX_GLUE_TEXT),
      text: text.slice(0, MAX_GLUE_TEXT),
      at: fromLong(at),
      took: fromLong(took),
    })),
    lost: wire.lost,
  };
}

function checkEnableBegin(message: EnableBegin): void {
  checkGeneration('EnableBegin', message.generation);
  checkRange('EnableBegin.numVfs', message.numVfs, 1, 0xffff);
}

function checkVfPlug(message: VfPlug): void {
  checkGeneration('VfPlug', message.generation);
  checkRange('VfPlug.vfIndex', message.vfIndex, 0, 0xfffe);
  checkRange('VfPlug.routingIdOffset', message.routingIdOffset, 1, 0xffff);
  checkRange('VfPlug.vendorId', message.vendorId, 0, 0xffff);
  checkRange('VfPlug.deviceId', message.deviceId, 0, 0xffff);
  checkRange('VfPlug.msixVectors', message.msixVectors, 0, MAX_MSIX_VECTORS);
  const path = message.socketPath ?? '';
  if (!isSocketPath(path)) {
    invalid(`VfPlug.socketPath must be at most ${MAX_SOCKET_PATH_BYTES} bytes without a NUL`);
  }
  checkBars('VfPlug', message.bars);
  if (message.carrier !== undefined) {
    checkCarrier(message.carrier, message.bars);
  }
}

/** A glue writes what it is told into a running machine: nothing of a carrier may lie beside its VF. */
function checkCarrier({ socketPath, bars }: Carrier, vfBars: readonly VfBar[]): void {
  if (socketPath === '' || !isSocketPath(socketPath)) {
    invalid(`Carrier.socketPath must be 1 to ${MAX_SOCKET_PATH_BYTES} bytes without a NUL`);
  }
  const taken = new Set<number>();
  for (const { index, vfBar, offset, size } of bars) {
    if (![0, 2, 4].includes(index) || taken.has(index)) {
      invalid(`Carrier.bars: ${index} is no 64-bit BAR, or comes twice`);
    }
    taken.add(index);
    const isPiece = size >= PAGE_BYTES && (size & (size - 1n)) === 0n && offset % size === 0n;
    const whole = vfBars.find((bar) => bar.index === vfBar)?.size ?? 0n;
    if (!isPiece || offset + size > whole) {
      invalid(`Carrier.bars: 0x${offset.toString(16)}+0x${size.toString(16)} of BAR ${vfBar}`);
    }
  }
}

function checkBars(message: string, bars: readonly VfBar[]): void {
  let taken = 0;
  for (const bar of bars) {
    checkBar(bar);
    const registers = (bar.is64Bit ? 3 : 1) << bar.index;
    if ((taken & registers) !== 0) {
      invalid(`${message}.bars name BAR ${bar.index} twice`);
    }
    taken |= registers;
  }
}

function checkBar({ index, size, is64Bit, address }: VfBar): void {
  checkRange('VfBar.index', index, 0, is64Bit ? 4 : 5);
  const most = is64Bit ? 1n << 64n : 1n << 32n;
  if (size < 16n || size >= most || (size & (size - 1n)) !== 0n) {
    invalid(`BAR ${index} has size 0x${size.toString(16)}: it must be a power of two that fits it`);
  }
  if (address < 0n || address >= most) {
    invalid(`BAR ${index} is at 0x${address.toString(16)}: a 32-bit BAR has no such address`);
  }
}

function checkVfUnplug(message: VfUnplug): void {
  checkGeneration('VfUnplug', message.generation);
  checkRange('VfUnplug.vfIndex', message.vfIndex, 0, 0xfffe);
  checkRange('VfUnplug.deadlineMilliseconds', message.deadlineMilliseconds, 0, 0xffff_ffff);
}

function checkHotplugReply(message: HotplugReply): void {
  checkGeneration('HotplugReply', message.generation);
  checkRange('HotplugReply.vfIndex', message.vfIndex, 0, 0xfffe);
  checkRange('HotplugReply.errno', message.errno, 0, 4095);
}

function checkGeneration(message: MessageName, generation: number): void {
  checkRange(`${message}.generation`, generation, 1, 0xffff_ffff);
}

function checkRange(what: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most) {
    invalid(`${what} is ${value}: it must be ${least}..${most}`);
  }
}

function invalid(message: string): never {
  throw new WireError('EINVAL', message);
}

function unknown(message: MessageName, field: string, value: number): never {
  throw new WireError('EPROTO', `${message}.${field} ${value} is not known in version 1`);
}

function encode(name: MessageName, message: object): Uint8Array {
  const bytes = types[name].encode(message as Record<string, unknown>).finish();
  // In Node protobufjs gives a Buffer, whose methods differ from a Uint8Array's.
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}

function decode<T>(name: MessageName, bytes: Uint8Array): T {
  try {
    return types[name].decode(bytes) as unknown as T;
  } catch (error) {
    throw new WireError('EPROTO', `${name} is no valid protobuf: ${(error as Error).message}`);
  }
}

/** The guest chose the address: what it puts beyond the end wraps, as in hardware, and is no error of ours. */
function wrapped(bars: readonly VfBar[]): VfBar[] {
  return bars.map((bar) => ({
    ...bar,
    address: BigInt.asUintN(bar.is64Bit ? 64 : 32, bar.address),
  }));
}

interface VfBarOnWire {
  index: number;
  size: Long;
  is_64bit: boolean;
  prefetchable: boolean;
  address: Long;
}

function toWire({ size, address, is64Bit, ...bar }: VfBar): VfBarOnWire {
  return { ...bar, size: toLong(size), is_64bit: is64Bit, address: toLong(address) };
}

function fromWire(bar: VfBarOnWire): VfBar {
  return {
    index: bar.index,
    size: fromLong(bar.size),
    is64Bit: bar.is_64bit,
    prefetchable: bar.prefetchable,
    address: fromLong(bar.address),
  };
}

interface CarrierOnWire {
  socketPath: string;
  bars: { index: number; vfBar: number; offset: Long; size: Long }[];
}

function carrierToWire({ socketPath, bars }: Carrier): CarrierOnWire {
  const onWire = bars.map((bar) => ({
    ...bar,
    offset: toLong(bar.offset),
    size: toLong(bar.size),
  }));
  return { socketPath, bars: onWire };
}

function carrierFromWire({ socketPath, bars }: CarrierOnWire): Carrier {
  return {
    socketPath,
    bars: bars.map(({ index, vfBar, offset, size }) => ({
      index,
      vfBar,
      offset: fromLong(offset),
      size: fromLong(size),
    })),
  };
}

function keyOf<K extends string>(table: Readonly<Record<K, number>>, value: number): K | undefined {
  return (Object.keys(table) as K[]).find((key) => table[key] === value);
}

/** How protobufjs takes and gives 64-bit values. */
interface Long {
  low: number;
  high: number;
  unsigned: boolean;
}

function toLong(value: bigint): Long {
  const low = Number(BigInt.asIntN(32, value));
  return { low, high: Number(BigInt.asIntN(32, value >> 32n)), unsigned: true };
}

function fromLong({ low, high }: Long): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}
