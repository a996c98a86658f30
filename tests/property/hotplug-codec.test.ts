import fc from 'fast-check';
import { expect, it } from 'vitest';
import { WireError } from '../../protocol/errno.ts';
import {
  decodeEnableBegin,
  decodeEnableEnd,
  decodeGetSlots,
  decodeHotplugReply,
  decodeSlots,
  decodeVfPlug,
  decodeVfUnplug,
  encodeEnableBegin,
  encodeEnableEnd,
  encodeHotplugReply,
  encodeVfPlug,
  encodeVfUnplug,
} from '../../protocol/hotplug/codec.ts';

const vfIndex = fc.nat(0xfffe);
const generation = fc.integer({ min: 1, max: 0xffff_ffff });
const text = fc.string({ maxLength: 50 });
const u16 = fc.nat(0xffff);
const bar64 = fc.record({
  index: fc.constantFrom(0, 2, 4),
  size: fc.integer({ min: 4, max: 62 }).map((power) => 1n << BigInt(power)),
  is64Bit: fc.constant(true),
  prefetchable: fc.boolean(),
  address: fc.bigInt({ min: 0n, max: 1n << 62n }),
});
const bar32 = fc.record({
  index: fc.constantFrom(1, 3, 5),
  size: fc.integer({ min: 4, max: 30 }).map((power) => 1n << BigInt(power)),
  is64Bit: fc.constant(false),
  prefetchable: fc.boolean(),
  address: fc.bigInt({ min: 0n, max: 1n << 31n }),
});
const barsOf = <T extends { index: number }>(bar: fc.Arbitrary<T>) =>
  fc.uniqueArray(bar, { selector: ({ index }) => index });
const plug = fc.record({
  vfIndex,
  generation,
  routingIdOffset: fc.integer({ min: 1, max: 0xffff }),
  vendorId: u16,
  deviceId: u16,
  bars: fc.oneof(barsOf(bar64), barsOf(bar32)),
  msixVectors: fc.nat(2048),
  placementLost: fc.boolean(),
});
const unplug = fc.record({
  vfIndex,
  generation,
  deadlineMilliseconds: fc.nat(0x7fff_ffff),
  reason: fc.constantFrom('guestDisabled', 'pfReset', 'vfLost', 'shuttingDown', 'unspecified'),
} as const);
const numVfs = fc.integer({ min: 1, max: 0xffff });
const begin = fc.oneof(
  fc.record({ generation, numVfs }),
  fc.record({
    generation,
    numVfs,
    readyAfterMilliseconds: fc.integer({ min: 1, max: 0xffff_ffff }),
  }),
  fc.record({ generation, numVfs, placed: fc.constant(true) }),
);
const end = fc.record({ generation, outcome: fc.constantFrom('enabled', 'failed'), text } as const);
const reply = fc.oneof(
  fc.record({
    vfIndex,
    generation,
    result: fc.constant('done'),
    errno: fc.constant(0),
    text,
  } as const),
  fc.record({
    vfIndex,
    generation,
    result: fc.constant('refused'),
    errno: fc.integer({ min: 1, max: 4095 }),
    text,
  } as const),
);

it('every message reads back as it was written', () => {
  fc.assert(
    fc.property(begin, plug, unplug, end, reply, (b, p, u, e, r) => {
      expect(decodeEnableBegin(encodeEnableBegin(b))).toEqual(b);
      expect(decodeVfPlug(encodeVfPlug(p))).toEqual(p);
      expect(decodeVfUnplug(encodeVfUnplug(u))).toEqual(u);
      expect(decodeEnableEnd(encodeEnableEnd(e))).toEqual(e);
      expect(decodeHotplugReply(encodeHotplugReply(r))).toEqual(r);
    }),
  );
});

it('mutated and arbitrary bodies throw nothing but WireError', () => {
  const decoders = [
    decodeEnableBegin,
    decodeVfPlug,
    decodeVfUnplug,
    decodeEnableEnd,
    decodeHotplugReply,
    decodeGetSlots,
    decodeSlots,
  ];
  const mutation = fc.record({ at: fc.nat(200), byte: fc.nat(255) });
  const mutated = fc
    .tuple(plug.map(encodeVfPlug), fc.array(mutation, { maxLength: 6 }))
    .map(([bytes, mutations]) => {
      for (const { at, byte } of mutations) {
        bytes[at % bytes.length] = byte;
      }
      return bytes;
    });
  fc.assert(
    fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 80 })), (bytes) => {
      for (const decode of decoders) {
        try {
          decode(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(WireError);
        }
      }
    }),
    { numRuns: 500 },
  );
});
