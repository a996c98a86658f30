// Bodies of the hot-plug extension, to and from protobuf, checked both ways. Pure. README.md beside this file says
// what they mean. A body that is no protobuf is EPROTO, one whose values cannot be meant is EINVAL; unknown fields
// are skipped, so that later versions may add some.
import protobuf from 'protobufjs/light.js';
import { Errno, WireError } from '../errno.ts';
import {
  checkEnableBegin,
  checkGeneration,
  checkGetSlots,
  checkHotplugReply,
  checkSlot,
  checkVfPlug,
  checkVfsTrapped,
  checkVfUnplug,
  invalid,
} from './checks.ts';
import {
  type Carrier,
  type EnableBegin,
  type EnableEnd,
  type GetSlots,
  type GlueEvent,
  type GlueEvents,
  type HotplugReply,
  MAX_GLUE_EVENTS,
  MAX_SLOTS,
  type Slot,
  type VfBar,
  type VfMemorySpace,
  type VfPlug,
  type VfsTrapped,
  type VfUnplug,
} from './messages.ts';
import { hotplugSchema } from './schema.ts';

// The package's users find the codec and its messages at one entry.
export * from './messages.ts';

const MAX_GLUE_TEXT = 256;

/** Longest text that is sent or kept, in UTF-16 units. */
const MAX_TEXT = 1024;

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
