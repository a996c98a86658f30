import { readFileSync } from 'node:fs';
import protobuf from 'protobufjs';
import { describe, expect, it } from 'vitest';
import { Errno, WireError } from '../../../protocol/errno.ts';
import {
  decodeEnableBegin,
  decodeEnableEnd,
  decodeGetSlots,
  decodeGlueEvents,
  decodeHotplugReply,
  decodeSlots,
  decodeVfMemorySpace,
  decodeVfPlug,
  decodeVfsTrapped,
  decodeVfUnplug,
  encodeEnableBegin,
  encodeEnableEnd,
  encodeGetSlots,
  encodeGlueEvents,
  encodeHotplugReply,
  encodeSlots,
  encodeVfMemorySpace,
  encodeVfPlug,
  encodeVfsTrapped,
  encodeVfUnplug,
} from '../../../protocol/hotplug/codec.ts';
import { HotplugCommand } from '../../../protocol/hotplug/commands.ts';
import { MAX_GLUE_EVENTS, type VfBar, type VfPlug } from '../../../protocol/hotplug/messages.ts';
import { hotplugSchema } from '../../../protocol/hotplug/schema.ts';

const bytes = (...values: number[]) => new Uint8Array(values);

const bar: VfBar = {
  index: 0,
  size: 0x4000n,
  is64Bit: true,
  prefetchable: true,
  address: 0x38_0000_8000n,
};
const plug: VfPlug = {
  vfIndex: 2,
  generation: 1,
  routingIdOffset: 3,
  vendorId: 0x1234,
  deviceId: 0x10b1,
  bars: [bar],
  msixVectors: 4,
  placementLost: false,
};

/** The code of the WireError that a call throws. */
function codeOf(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    expect(error).toBeInstanceOf(WireError);
    return (error as WireError).code;
  }
  return 'none';
}

/** `UNPLUG_REASON_PF_RESET` → `pfReset` */
function ownName(value: string): string {
  return value
    .replace(/^(UNPLUG_REASON|ENABLE_OUTCOME|HOTPLUG_RESULT)_/, '')
    .toLowerCase()
    .replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

describe('the schema', () => {
  it('that runs is the one in hotplug.proto', () => {
    const text = readFileSync(new URL('../../../protocol/hotplug/hotplug.proto', import.meta.url));
    const { root } = protobuf.parse(text.toString());
    const written = root.lookup('sriov_hotplug.v1')!.toJSON() as unknown;
    const shown = JSON.stringify(written, (key, value) => {
      if (key === 'values') {
        return Object.fromEntries(Object.entries(value).map(([name, at]) => [ownName(name), at]));
      }
      return key === 'protoName' ? undefined : value;
    });
    expect(JSON.parse(shown.replaceAll('is_64bit', 'is64Bit'))).toEqual(hotplugSchema);
  });

  it('has command numbers clear of the standard', () => {
    expect(Object.values(HotplugCommand)).toEqual([
      0x8001, 0x8002, 0x8003, 0x8004, 0x8005, 0x8006, 0x8007, 0x8010, 0x8011, 0x8012, 0x8013,
      0x8014, 0x8015, 0x8016, 0x8017,
    ]);
  });
});

describe('message bodies, against bytes written by hand', () => {
  it('EnableBegin', () => {
    const message = { generation: 300, numVfs: 7 };
    expect(encodeEnableBegin(message)).toEqual(bytes(0x08, 0xac, 0x02, 0x10, 7));
    expect(decodeEnableBegin(bytes(0x08, 0xac, 0x02, 0x10, 7))).toEqual(message);
  });

  it('VfMemorySpace', () => {
    const silentVfs = [1, 8];
    expect(encodeVfMemorySpace({ generation: 2, enabled: true, silentVfs })).toEqual(
      bytes(0x08, 2, 0x10, 1, 0x1a, 2, 1, 8),
    );
    expect(decodeVfMemorySpace(bytes(0x08, 2))).toEqual({
      ...{ generation: 2, enabled: false, silentVfs: [] },
    });
    expect(codeOf(() => decodeVfMemorySpace(bytes()))).toBe('EINVAL');
  });

  it('the carrier of a VfPlug, at the end of it', () => {
    const carrier = {
      socketPath: '/c',
      bars: [{ index: 2, vfBar: 0, offset: 0x2000n, size: 0x2000n }],
    };
    const [plain, body] = [encodeVfPlug(plug), encodeVfPlug({ ...plug, carrier })];
    const piece = [0x08, 2, 0x18, 0x80, 0x40, 0x20, 0x80, 0x40];
    const own = [0x0a, 2, ...Buffer.from('/c'), 0x12, piece.length, ...piece];
    expect(body.subarray(plain.length)).toEqual(bytes(0x52, own.length, ...own));
    expect(decodeVfPlug(body)).toEqual({ ...plug, carrier });
  });

  it('a carrier is refused that would lie beside its VF, or has no place of its own', () => {
    const piece = { index: 0, vfBar: 0, offset: 0x2000n, size: 0x2000n };
    const codes = [
      { ...piece, vfBar: 2 },
      { ...piece, offset: 0x4000n },
      { ...piece, offset: 0x1000n },
      { ...piece, size: 0x3000n },
      { ...piece, offset: 0n, size: 0x800n },
      { ...piece, index: 1 },
      { ...piece, index: 6 },
    ].map((each) =>
      codeOf(() => encodeVfPlug({ ...plug, carrier: { socketPath: '/c', bars: [each] } })),
    );
    expect(codes).toEqual(codes.map(() => 'EINVAL'));
    const none = { socketPath: '', bars: [piece] };
    expect(codeOf(() => encodeVfPlug({ ...plug, carrier: none }))).toBe('EINVAL');
    const twice = { socketPath: '/c', bars: [piece, piece] };
    expect(codeOf(() => encodeVfPlug({ ...plug, carrier: twice }))).toBe('EINVAL');
  });

  it('GlueEvents', () => {
    const message = {
      events: [{ what: 'stop', text: 'stop', at: 2n ** 40n, took: 300n }],
      lost: 7,
    };
    const event = [0x0a, 4, ...Buffer.from('stop'), 0x12, 4, ...Buffer.from('stop')];
    const times = [0x18, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 0x20, 0xac, 0x02];
    const body = [...event, ...times];
    expect(encodeGlueEvents(message)).toEqual(bytes(0x0a, body.length, ...body, 0x10, 7));
    expect(decodeGlueEvents(encodeGlueEvents(message))).toEqual(message);
  });

  it('more GlueEvents than a message may hold are refused', () => {
    const event = { what: 'command', text: '', at: 0n, took: 0n };
    const events = Array.from({ length: MAX_GLUE_EVENTS + 1 }, () => event);
    expect(() => decodeGlueEvents(encodeGlueEvents({ events, lost: 0 }))).toThrow('at most 1024');
    expect(
      decodeGlueEvents(encodeGlueEvents({ events: events.slice(1), lost: 0 })).events,
    ).toHaveLength(MAX_GLUE_EVENTS);
  });

  it('more GlueEvents than a message may hold are refused before what they say is looked at', () => {
    const empty = [0x0a, 0];
    const none = [0x0a, 1, 0xff];
    const events = Array.from({ length: MAX_GLUE_EVENTS + 1 }, () => empty);
    expect(codeOf(() => decodeGlueEvents(bytes(...none, ...events.flat())))).toBe('EINVAL');
    expect(codeOf(() => decodeGlueEvents(bytes(...none)))).toBe('EPROTO');
    expect(codeOf(() => decodeGlueEvents(bytes(0x0a, 5)))).toBe('EPROTO');
  });

  it('VfsTrapped', () => {
    const message = { generation: 2, firstVf: 40, text: 'why' };
    const wire = bytes(0x08, 2, 0x10, 40, 0x1a, 3, ...Buffer.from('why'));
    expect(encodeVfsTrapped(message)).toEqual(wire);
    expect(decodeVfsTrapped(wire)).toEqual(message);
    expect(codeOf(() => decodeVfsTrapped(bytes(0x10, 1)))).toBe('EINVAL');
  });

  it('EnableBegin of VFs that take their time', () => {
    const message = { generation: 1, numVfs: 2, readyAfterMilliseconds: 300 };
    expect(encodeEnableBegin(message)).toEqual(bytes(0x08, 1, 0x10, 2, 0x18, 0xac, 0x02));
    expect(decodeEnableBegin(encodeEnableBegin(message))).toEqual(message);
  });

  it('VfPlug', () => {
    const wire = bytes(
      ...[0x08, 2, 0x10, 1, 0x18, 3],
      ...[0x20, 0xb4, 0x24, 0x28, 0xb1, 0x21],
      // The BAR: index 0 is left out, size 0x4000, 64-bit, prefetchable, address 0x3800008000.
      ...[0x32, 15, 0x10, 0x80, 0x80, 0x01, 0x18, 1, 0x20, 1, 0x28],
      ...[0x80, 0x80, 0x82, 0x80, 0x80, 0x07],
      ...[0x38, 4],
    );
    expect(decodeVfPlug(wire)).toEqual(plug);
    expect(decodeVfPlug(encodeVfPlug(plug))).toEqual(plug);
  });

  it('VfPlug with a path and a lost placement', () => {
    const message = { ...plug, socketPath: '/run/vf2.sock', placementLost: true };
    expect(decodeVfPlug(encodeVfPlug(message))).toEqual(message);
  });

  it('VfUnplug', () => {
    const message = {
      vfIndex: 2,
      generation: 1,
      deadlineMilliseconds: 200,
      reason: 'pfReset',
    } as const;
    const wire = bytes(0x08, 2, 0x10, 1, 0x18, 0xc8, 0x01, 0x20, 2);
    expect(encodeVfUnplug(message)).toEqual(wire);
    expect(decodeVfUnplug(wire)).toEqual(message);
  });

  it('EnableEnd', () => {
    const message = { generation: 9, outcome: 'failed', text: 'no' } as const;
    const wire = bytes(0x08, 9, 0x10, 2, 0x1a, 2, 0x6e, 0x6f);
    expect(encodeEnableEnd(message)).toEqual(wire);
    expect(decodeEnableEnd(wire)).toEqual(message);
  });

  it('HotplugReply', () => {
    const done = { vfIndex: 0, generation: 1, result: 'done', errno: 0, text: '' } as const;
    const refused = { vfIndex: 1, generation: 1, result: 'refused', errno: 16, text: 'x' } as const;
    expect(decodeHotplugReply(bytes(0x10, 1, 0x18, 1))).toEqual(done);
    expect(decodeHotplugReply(encodeHotplugReply(done))).toEqual(done);
    expect(decodeHotplugReply(bytes(0x08, 1, 0x10, 1, 0x18, 2, 0x20, 16, 0x2a, 1, 0x78))).toEqual(
      refused,
    );
    expect(decodeHotplugReply(encodeHotplugReply(refused))).toEqual(refused);
  });
});

describe('slots of VFs that are off', () => {
  const slot = { vfIndex: 1, routingIdOffset: 2, bars: [bar], placementLost: true, slotCommand: 6 };

  it('GetSlots', () => {
    const wire = bytes(0x08, 3, 0x10, 16);
    expect(encodeGetSlots({ firstVf: 3, count: 16 })).toEqual(wire);
    expect(decodeGetSlots(wire)).toEqual({ firstVf: 3, count: 16 });
  });

  it('Slots', () => {
    const [other] = [{ ...slot, vfIndex: 2, placementLost: false, slotCommand: 0 }];
    expect(decodeSlots(encodeSlots([slot, other]))).toEqual([slot, other]);
    expect(decodeSlots(bytes())).toEqual([]);
  });

  it.each([
    ['none asked for', () => decodeGetSlots(bytes(0x08, 3))],
    ['more asked for than one message may have', () => encodeGetSlots({ firstVf: 0, count: 65 })],
    ['a slot where the PF is', () => encodeSlots([{ ...slot, routingIdOffset: 0 }])],
    ['the same BAR twice', () => encodeSlots([{ ...slot, bars: [bar, bar] }])],
    ['more slots than may come', () => decodeSlots(encodeSlots(Array(65).fill(slot)))],
  ])('%s is EINVAL', (_, call) => {
    expect(codeOf(call)).toBe('EINVAL');
  });
});

describe('an address that a guest put too high', () => {
  it('wraps as it does in hardware', () => {
    const wrapped = (is64Bit: boolean, address: bigint) =>
      decodeVfPlug(encodeVfPlug({ ...plug, bars: [{ ...bar, is64Bit, address }] })).bars[0]!
        .address;
    expect(wrapped(false, 0x1_0000_4000n)).toBe(0x4000n);
    expect(wrapped(true, (1n << 64n) + 0x8000n)).toBe(0x8000n);
  });
});

describe('later versions', () => {
  it('may add fields, which are skipped', () => {
    const wire = bytes(0x08, 1, 0x10, 7, 0xfa, 0x06, 2, 1, 2, 0xf8, 0x06, 5);
    expect(decodeEnableBegin(wire)).toEqual({ generation: 1, numVfs: 7 });
  });

  it('may add reasons, which read as unspecified', () => {
    const wire = bytes(0x08, 2, 0x10, 1, 0x18, 100, 0x20, 77);
    expect(decodeVfUnplug(wire).reason).toBe('unspecified');
  });

  it('may not add outcomes and results: an answer that is not understood is EPROTO', () => {
    expect(codeOf(() => decodeEnableEnd(bytes(0x08, 1, 0x10, 3)))).toBe('EPROTO');
    expect(codeOf(() => decodeHotplugReply(bytes(0x10, 1, 0x18, 3)))).toBe('EPROTO');
    expect(codeOf(() => decodeHotplugReply(bytes(0x10, 1)))).toBe('EPROTO');
  });
});

describe('malformed protobuf is EPROTO', () => {
  const cases: [string, Uint8Array][] = [
    ['a varint that ends early', bytes(0x08, 0x80)],
    ['a length beyond the end', bytes(0x08, 1, 0x32, 50, 0)],
    ['field number 0', bytes(0x00, 1)],
    ['a wire type that does not exist', bytes(0x0f)],
    ['an end group without its start', bytes(0x0c)],
    ['a group that never ends', bytes(0x7b)],
  ];
  it.each(cases)('%s', (_, wire) => {
    expect(codeOf(() => decodeVfPlug(wire))).toBe('EPROTO');
  });
});

describe('values that cannot be meant are EINVAL, read or written', () => {
  const big = 1n << 40n;
  const cases: [string, Partial<VfPlug>][] = [
    ['generation 0', { generation: 0 }],
    ['a VF index of 65535', { vfIndex: 65535 }],
    ['a routing ID offset of 0, which is the PF itself', { routingIdOffset: 0 }],
    ['a vendor ID of 17 bits', { vendorId: 0x10000 }],
    ['2049 MSI-X vectors', { msixVectors: 2049 }],
    ['a path of 108 bytes', { socketPath: 'x'.repeat(108) }],
    ['a path with a NUL', { socketPath: 'a\0b' }],
    ['a BAR 6', { bars: [{ ...bar, index: 6, is64Bit: false, address: 0n }] }],
    ['a 64-bit BAR 5', { bars: [{ ...bar, index: 5 }] }],
    ['a BAR of 0 bytes', { bars: [{ ...bar, size: 0n }] }],
    ['a BAR of 0x3000 bytes', { bars: [{ ...bar, size: 0x3000n }] }],
    ['a 32-bit BAR of 2^40 bytes', { bars: [{ ...bar, is64Bit: false, size: big }] }],
    ['the same BAR twice', { bars: [bar, bar] }],
    ['a BAR in the upper half of another', { bars: [bar, { ...bar, index: 1 }] }],
  ];
  it.each(cases)('%s', (_, change) => {
    expect(codeOf(() => encodeVfPlug({ ...plug, ...change }))).toBe('EINVAL');
  });

  it('a 32-bit BAR above 4 GiB from elsewhere', () => {
    const wire = encodeVfPlug(plug);
    wire[wire.lastIndexOf(0x18) + 1] = 0;
    expect(codeOf(() => decodeVfPlug(wire))).toBe('EINVAL');
  });

  it('an empty body, which names no generation', () => {
    expect(codeOf(() => decodeEnableBegin(bytes()))).toBe('EINVAL');
    expect(codeOf(() => decodeVfPlug(bytes()))).toBe('EINVAL');
    expect(codeOf(() => decodeVfUnplug(bytes()))).toBe('EINVAL');
    expect(codeOf(() => decodeEnableEnd(bytes()))).toBe('EINVAL');
  });

  it('no VFs at all, and an errno beyond 4095', () => {
    expect(codeOf(() => decodeEnableBegin(bytes(0x08, 1)))).toBe('EINVAL');
    expect(codeOf(() => decodeHotplugReply(bytes(0x10, 1, 0x18, 2, 0x20, 0x80, 0x20)))).toBe(
      'EINVAL',
    );
  });
});

describe('what people write', () => {
  it('a refusal without an errno reads as EIO', () => {
    expect(decodeHotplugReply(bytes(0x10, 1, 0x18, 2)).errno).toBe(Errno.EIO);
  });

  it('is cut to 1024 characters', () => {
    const wire = encodeEnableEnd({ generation: 1, outcome: 'failed', text: 'y'.repeat(5000) });
    expect(decodeEnableEnd(wire).text).toBe('y'.repeat(1024));
  });
});
