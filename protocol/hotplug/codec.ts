// Bodies of the hot-plug extension, to and from protobuf, checked both ways. Pure. README.md beside this file says
// what they mean. A body that is no protobuf is EPROTO, one whose values cannot be meant is EINVAL; unknown fields
// are skipped, so that later versions may add some.
import protobuf from 'protobufjs/light.js';
import { Errno, WireError } from '../errno.ts';
import { isSocketPath, MAX_SOCKET_PATH_BYTES } from '../launch/socket-names.ts';
import { PAGE_BYTES } from '../page.ts';
import { hotplugSchema } from './schema.ts';

/** The guest has set VF Enable. */
export interface EnableBegin {
  /** 1 for a server's first enable, and one more for each later one. */
  generation: number;
  numVfs: number;
  /** No VF will be up sooner, counted from this message. */
  readyAfterMilliseconds?: number | undefined;
  /** Slot mode: as far as the server knows, every slot is placed and answers. Read as false when it is not there. */
  placed?: boolean | undefined;
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
  /** Slot mode: Command of the slot, as the VMM has it. Read as 0 when it is not there. */
  slotCommand?: number | undefined;
  /** Slot mode: absent where nothing of the VF can be mapped. */
  carrier?: Carrier | undefined;
}

/** What a glue needs of it. */
export type VfPlacement = Pick<
  VfPlug,
  'routingIdOffset' | 'bars' | 'placementLost' | 'slotCommand'
>;

/** A slot whose VF is off, and where it belongs. */
export interface Slot extends VfPlacement {
  vfIndex: number;
}

/** Which slots a glue asks for. */
export interface GetSlots {
  firstVf: number;
  /** At most so many are wanted; 1 to MAX_SLOTS. */
  count: number;
}

/** More in one message are refused. */
export const MAX_SLOTS = 64;

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

/** The guest has written VF Memory Space Enable while it has VFs, or had the VMM map or unmap slots of theirs. */
export interface VfMemorySpace {
  /** Of the enable that the VFs are of. */
  generation: number;
  enabled: boolean;
  /** VFs whose slots do not answer in memory, by their own Command or Power State; by index, ascending. */
  silentVfs: readonly number[];
}

/** A glue maps nothing of the VFs, or of some of them. */
export interface VfsTrapped {
  /** Of the enable that the VFs are of. */
  generation: number;
  /** From this VF on; 0: of all of them. */
  firstVf: number;
  /** Why, for people. */
  text: string;
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

const root = protobuf.Root.fromJSON(hotplugSchema);
const types = {
  EnableBegin: root.lookupType('EnableBegin'),
  VfPlug: root.lookupType('VfPlug'),
  VfUnplug: root.lookupType('VfUnplug'),
  EnableEnd: root.lookupType('EnableEnd'),
  VfMemorySpace: root.lookupType('VfMemorySpace'),
  GetSlots: root.lookupType('GetSlots'),
  Slots: root.lookupType('Slots'),
  HotplugReply: root.lookupType('HotplugReply'),
  GlueEvents: root.lookupType('GlueEvents'),
  VfsTrapped: root.lookupType('VfsTrapped'),
};
type MessageName = keyof typeof types;

/** @throws WireError EINVAL when a value is out of range; so does every encoder here. */
export function encodeEnableBegin(message: EnableBegin): Uint8Array {
  checkEnableBegin(message);
  return encode('EnableBegin', message);
}

/** @throws WireError EPROTO or EINVAL; so does every decoder here. */
export function decodeEnableBegin(bytes: Uint8Array): EnableBegin {
  const { placed, ...message } = decode<EnableBegin>('EnableBegin', bytes);
  if (message.readyAfterMilliseconds === 0) {
    delete message.readyAfterMilliseconds;
  }
  const begin: EnableBegin = placed === true ? { ...message, placed } : message;
  checkEnableBegin(begin);
  return begin;
}

export function encodeVfPlug(message: VfPlug): Uint8Array {
  const plug = { ...message, bars: wrapped(message.bars) };
  checkVfPlug(plug);
  return encode('VfPlug', plug);
}

interface VfPlugOnWire extends Omit<VfPlug, 'carrier'> {
  carrier: Carrier | null;
}

export function decodeVfPlug(bytes: Uint8Array): VfPlug {
  const { socketPath, slotCommand, carrier, ...rest } = decode<VfPlugOnWire>('VfPlug', bytes);
  const message: VfPlug = {
    ...rest,
    ...(slotCommand ? { slotCommand } : {}),
    ...(socketPath === '' ? {} : { socketPath }),
    ...(carrier === null ? {} : { carrier }),
  };
  checkVfPlug(message);
  return message;
}

export function encodeVfUnplug(message: VfUnplug): Uint8Array {
  checkVfUnplug(message);
  return encode('VfUnplug', message);
}

export function decodeVfUnplug(bytes: Uint8Array): VfUnplug {
  const wire = decode<VfUnplug>('VfUnplug', bytes);
  const message: VfUnplug = { ...wire, reason: isKnown(wire.reason) ? wire.reason : 'unspecified' };
  checkVfUnplug(message);
  return message;
}

export function encodeEnableEnd(message: EnableEnd): Uint8Array {
  checkGeneration('EnableEnd', message.generation);
  return encode('EnableEnd', { ...message, text: message.text.slice(0, MAX_TEXT) });
}

export function decodeEnableEnd(bytes: Uint8Array): EnableEnd {
  const message = decode<EnableEnd>('EnableEnd', bytes);
  checkGeneration('EnableEnd', message.generation);
  insistOnKnown('EnableEnd.outcome', message.outcome);
  return { ...message, text: message.text.slice(0, MAX_TEXT) };
}

export function encodeVfMemorySpace(message: VfMemorySpace): Uint8Array {
  checkGeneration('VfMemorySpace', message.generation);
  return encode('VfMemorySpace', message);
}

export function decodeVfMemorySpace(bytes: Uint8Array): VfMemorySpace {
  const message = decode<VfMemorySpace>('VfMemorySpace', bytes);
  checkGeneration('VfMemorySpace', message.generation);
  return message;
}

export function encodeGetSlots(message: GetSlots): Uint8Array {
  checkGetSlots(message);
  return encode('GetSlots', message);
}

export function decodeGetSlots(bytes: Uint8Array): GetSlots {
  const message = decode<GetSlots>('GetSlots', bytes);
  checkGetSlots(message);
  return message;
}

export function encodeSlots(slots: readonly Slot[]): Uint8Array {
  const wire = slots.map((slot) => ({ ...slot, bars: wrapped(slot.bars) }));
  wire.forEach(checkSlot);
  return encode('Slots', { slots: wire });
}

export function decodeSlots(bytes: Uint8Array): Slot[] {
  if (hasMoreThan(MAX_SLOTS, 'slots', 'Slots', bytes)) {
    invalid(`Slots holds too many: at most ${MAX_SLOTS} are taken`);
  }
  const { slots } = decode<{ slots: Slot[] }>('Slots', bytes);
  slots.forEach(checkSlot);
  return slots;
}

export function encodeHotplugReply(message: HotplugReply): Uint8Array {
  checkHotplugReply(message);
  return encode('HotplugReply', { ...message, text: message.text.slice(0, MAX_TEXT) });
}

export function decodeHotplugReply(bytes: Uint8Array): HotplugReply {
  const wire = decode<HotplugReply>('HotplugReply', bytes);
  insistOnKnown('HotplugReply.result', wire.result);
  const message: HotplugReply = {
    ...wire,
    errno: wire.result === 'refused' ? wire.errno || Errno.EIO : 0,
    text: wire.text.slice(0, MAX_TEXT),
  };
  checkHotplugReply(message);
  return message;
}

export function encodeGlueEvents({ events, lost }: GlueEvents): Uint8Array {
  return encode('GlueEvents', { events: events.map(shortened), lost });
}

export function decodeGlueEvents(bytes: Uint8Array): GlueEvents {
  // Counted before they are made: a message has room for half a million, which take a second.
  if (hasMoreThan(MAX_GLUE_EVENTS, 'events', 'GlueEvents', bytes)) {
    invalid(`GlueEvents holds too many events: at most ${MAX_GLUE_EVENTS} are taken`);
  }
  const { events, lost } = decode<GlueEvents>('GlueEvents', bytes);
  return { events: events.map(shortened), lost };
}

function shortened({ what, text, ...times }: GlueEvent): GlueEvent {
  return { what: what.slice(0, MAX_GLUE_TEXT), text: text.slice(0, MAX_GLUE_TEXT), ...times };
}

export function encodeVfsTrapped(message: VfsTrapped): Uint8Array {
  checkVfsTrapped(message);
  return encode('VfsTrapped', { ...message, text: message.text.slice(0, MAX_TEXT) });
}

export function decodeVfsTrapped(bytes: Uint8Array): VfsTrapped {
  const { generation, firstVf, text } = decode<VfsTrapped>('VfsTrapped', bytes);
  const message = { generation, firstVf, text: text.slice(0, MAX_TEXT) };
  checkVfsTrapped(message);
  return message;
}

function checkVfsTrapped(message: VfsTrapped): void {
  checkGeneration('VfsTrapped', message.generation);
  checkRange('VfsTrapped.firstVf', message.firstVf, 0, 0xfffe);
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
    const isPiece =
      size >= BigInt(PAGE_BYTES) && (size & (size - 1n)) === 0n && offset % size === 0n;
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

function checkGetSlots({ firstVf, count }: GetSlots): void {
  checkRange('GetSlots.firstVf', firstVf, 0, 0xffff);
  checkRange('GetSlots.count', count, 1, MAX_SLOTS);
}

function checkSlot({ vfIndex, routingIdOffset, bars }: Slot): void {
  checkRange('Slot.vfIndex', vfIndex, 0, 0xfffe);
  checkRange('Slot.routingIdOffset', routingIdOffset, 1, 0xffff);
  checkBars('Slot', bars);
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

/** protobufjs gives the number of a value that the schema has no name for; 0 stands for none at all. */
function isKnown(value: string | number): boolean {
  return typeof value === 'string' && value !== 'unspecified';
}

function insistOnKnown(field: string, value: string | number): void {
  if (!isKnown(value)) {
    throw new WireError('EPROTO', `${field} ${value} is not known in version 1`);
  }
}

function encode(name: MessageName, message: object): Uint8Array {
  const type = types[name];
  const bytes = type.encode(type.fromObject(message as Record<string, unknown>)).finish();
  // In Node protobufjs gives a Buffer, whose methods differ from a Uint8Array's.
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** What is not on the wire has its default: 0, false, '', [], and null for a message. */
function decode<T>(name: MessageName, bytes: Uint8Array): T {
  const type = types[name];
  return readProtobuf(name, () => type.toObject(type.decode(bytes), AS_OBJECT) as T);
}

/** @throws WireError EPROTO where `read` throws. */
function readProtobuf<T>(name: MessageName, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new WireError('EPROTO', `it is no valid protobuf: ${(error as Error).message}`, {
      call: name,
    });
  }
}

/** Whether a repeated field is there more than `most` times. Looks no further than that. */
function hasMoreThan(most: number, field: string, name: MessageName, bytes: Uint8Array): boolean {
  const { id } = types[name].fields[field]!;
  return readProtobuf(name, () => {
    const reader = protobuf.Reader.create(bytes);
    let found = 0;
    while (reader.pos < reader.len && found <= most) {
      const tag = reader.uint32();
      found += tag >>> 3 === id ? 1 : 0;
      reader.skipType(tag & 7);
    }
    return found > most;
  });
}

const AS_OBJECT = { longs: BigInt, enums: String, defaults: true };

/** The guest chose the address: what it puts beyond the end wraps, as in hardware, and is no error of ours. */
function wrapped(bars: readonly VfBar[]): VfBar[] {
  return bars.map((bar) => ({
    ...bar,
    address: BigInt.asUintN(bar.is64Bit ? 64 : 32, bar.address),
  }));
}
