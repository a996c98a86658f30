import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Interrupts } from '../../../backend/device/interrupts.ts';
import type { IrqRequest } from '../../../backend/device/physical-device.ts';
import { createEventFd, drainEventFd } from '../../../protocol/unix/eventfd.ts';
import { closeFd } from '../../../protocol/unix/libc.ts';
import { dupFd } from '../../../protocol/unix/memory.ts';
import { IrqIndex } from '../../../protocol/vfio-user/commands.ts';
import { IrqInfoFlag, IrqSetFlag } from '../../../protocol/vfio-user/messages.ts';
import { openLoopbackFunction } from '../../fakes/loopback.ts';
import { RecordingFunction } from '../../fakes/recording-function.ts';
import { openFds } from '../protocol/unix/open-fds.ts';

const VECTORS = 4;
const { msix, intx, req } = IrqIndex;
const { dataNone, dataBool, dataEventFd, actionMask, actionUnmask, actionTrigger } = IrqSetFlag;
const BIND = dataEventFd | actionTrigger;

let before: number;
let interrupts: Interrupts;
let hardware: RecordingFunction;
/** The client's own ends, one for each vector. */
let lines: number[];

beforeEach(() => {
  before = openFds();
  hardware = new RecordingFunction(
    openLoopbackFunction(
      {
        index: 0,
        options: { totalVfs: 1, vfBarSize: 16384, enableMilliseconds: 0 },
      },
      1,
      { raise: () => false, drive: () => {}, readMemory: () => false, writeMemory: () => false },
    ),
  );
  const count = [1, 0, VECTORS, 1, 1];
  const flags = [IrqInfoFlag.maskable | IrqInfoFlag.autoMasked, 0, IrqInfoFlag.maskable, 0, 0];
  interrupts = new Interrupts(
    count.map((each, index) => ({ index, count: each, flags: flags[index]! })),
  );
  lines = Array.from({ length: VECTORS }, createEventFd);
});
afterEach(() => {
  interrupts.clear(undefined, () => {});
  hardware.close();
  lines.forEach(closeFd);
  expect(openFds()).toBe(before);
});

function apply(flags: number, change: Partial<IrqRequest> = {}): void {
  interrupts.apply({ index: msix, start: 0, count: VECTORS, flags, ...change }, hardware);
}

/** Binds the client's lines from `start` on, as SCM_RIGHTS would bring them: new fds of the same files. */
function bind(start = 0, which: readonly number[] = lines, index: number = msix): void {
  apply(BIND, { index, start, count: which.length, eventFds: which.map(dupFd) });
}

/** Raises every vector and tells which lines were signalled. */
function raisedLines(): number[] {
  for (let vector = 0; vector < VECTORS; vector++) {
    interrupts.raise(msix, vector);
  }
  return lines.flatMap((fd, line) => (drainEventFd(fd) > 0n ? [line] : []));
}

function refused(flags: number, change: Partial<IrqRequest> = {}): void {
  expect(() => apply(flags, change)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
}

describe('binding eventfds', () => {
  it('signals each vector on its own', () => {
    bind();
    expect(interrupts.raise(msix, 2)).toBe(true);
    expect(lines.map(drainEventFd)).toEqual([0n, 0n, 1n, 0n]);
    expect(interrupts.raised).toBe(1);
  });

  it('of a range leaves the others as they are', () => {
    bind(2, lines.slice(2));
    expect(raisedLines()).toEqual([2, 3]);
    bind(1, [lines[1]!]);
    expect(raisedLines()).toEqual([1, 2, 3]);
  });

  it('anew replaces the old eventfd and closes it', () => {
    bind();
    const open = openFds();
    bind(0, [lines[3]!]);
    expect(openFds()).toBe(open);
    interrupts.raise(msix, 0);
    expect(lines.map(drainEventFd)).toEqual([0n, 0n, 0n, 1n]);
  });

  it('tells the hardware the same', () => {
    bind(1, lines.slice(1, 3));
    expect(hardware.irqs).toMatchObject([{ index: msix, start: 1, count: 2, flags: BIND }]);
    expect(hardware.irqs[0]?.eventFds).toHaveLength(2);
  });

  it('works without hardware, for a VF that is not up', () => {
    const eventFds = lines.map(dupFd);
    interrupts.apply({ index: msix, start: 0, count: 4, flags: BIND, eventFds }, undefined);
    expect(raisedLines()).toEqual([0, 1, 2, 3]);
  });

  it('that the hardware refuses keeps what was bound before, and closes what came', () => {
    bind(0, [lines[0]!]);
    const open = openFds();
    hardware.refusesIrqs = true;
    expect(() => bind(0, lines.slice(1, 3))).toThrow('VFIO_DEVICE_SET_IRQS');
    expect(openFds()).toBe(open);
    expect(raisedLines()).toEqual([0]);
    hardware.refusesIrqs = false;
  });
});

describe('taking eventfds away', () => {
  beforeEach(() => bind());

  it('without any fd de-assigns the range, also one that starts above 0', () => {
    apply(BIND, { start: 2, count: 2 });
    expect(raisedLines()).toEqual([0, 1]);
  });

  it('without any fd reaches the hardware as -1 for each vector: so QEMU enables MSI-X', () => {
    apply(BIND, { start: 1, count: 3 });
    expect(hardware.irqs.at(-1)).toMatchObject({ start: 1, eventFds: [-1, -1, -1] });
  });

  it('closes them', () => {
    const open = openFds();
    apply(BIND, { start: 2, count: 2 });
    expect(openFds()).toBe(open - 2);
  });

  it('with count 0 disables the index as a whole', () => {
    const open = openFds();
    apply(dataNone | actionTrigger, { count: 0 });
    expect(raisedLines()).toEqual([]);
    expect(openFds()).toBe(open - VECTORS);
    expect(hardware.irqs.at(-1)).toMatchObject({ count: 0, flags: dataNone | actionTrigger });
  });

  it('is possible again and again, and binding works afterwards', () => {
    apply(dataNone | actionTrigger, { count: 0 });
    apply(dataNone | actionTrigger, { count: 0 });
    bind();
    expect(raisedLines()).toEqual([0, 1, 2, 3]);
  });
});

describe('triggering from the client', () => {
  beforeEach(() => bind());

  it('without data raises the whole range', () => {
    apply(dataNone | actionTrigger, { start: 1, count: 2 });
    expect(lines.map(drainEventFd)).toEqual([0n, 1n, 1n, 0n]);
  });

  it('with booleans raises those that are true', () => {
    apply(dataBool | actionTrigger, { bools: [true, false, false, true] });
    expect(lines.map(drainEventFd)).toEqual([1n, 0n, 0n, 1n]);
  });

  it('of a vector without an eventfd does nothing', () => {
    apply(BIND, { start: 0, count: 1 });
    apply(dataNone | actionTrigger, { count: 2 });
    expect(lines.map(drainEventFd)).toEqual([0n, 1n, 0n, 0n]);
  });
});

describe('masking', () => {
  beforeEach(() => bind());

  it('holds an interrupt back until it is unmasked, and gives it once', () => {
    apply(dataNone | actionMask, { start: 1, count: 1 });
    expect(interrupts.raise(msix, 1)).toBe(false);
    expect(interrupts.raise(msix, 1)).toBe(false);
    expect(drainEventFd(lines[1]!)).toBe(0n);
    apply(dataNone | actionUnmask, { start: 1, count: 1 });
    expect(drainEventFd(lines[1]!)).toBe(1n);
  });

  it('gives nothing on unmasking where nothing was raised', () => {
    apply(dataNone | actionMask);
    apply(dataNone | actionUnmask);
    expect(lines.map(drainEventFd)).toEqual([0n, 0n, 0n, 0n]);
  });

  it('by booleans touches those that are true', () => {
    apply(dataBool | actionMask, { bools: [true, false, true, false] });
    expect(raisedLines()).toEqual([1, 3]);
    apply(dataBool | actionUnmask, { bools: [true, false, false, false] });
    expect(lines.map(drainEventFd)).toEqual([1n, 0n, 0n, 0n]);
  });

  it('is forgotten when the index is disabled', () => {
    apply(dataNone | actionMask);
    interrupts.raise(msix, 0);
    apply(dataNone | actionTrigger, { count: 0 });
    bind();
    expect(raisedLines()).toEqual([0, 1, 2, 3]);
  });

  it('keeps what waits when another eventfd is bound to the vector: that one is not signalled for the old', () => {
    apply(dataNone | actionMask, { start: 0, count: 1 });
    interrupts.raise(msix, 0);
    bind(0, [lines[0]!]);
    apply(dataNone | actionUnmask, { start: 0, count: 1 });
    expect(drainEventFd(lines[0]!)).toBe(0n);
  });

  it('reaches the hardware', () => {
    apply(dataNone | actionMask, { start: 1, count: 2 });
    expect(hardware.irqs.at(-1)).toMatchObject({
      start: 1,
      count: 2,
      flags: dataNone | actionMask,
    });
  });

  it('by eventfd goes to the hardware alone, which keeps a reference of its own', () => {
    const open = openFds();
    bind(0, [lines[0]!], intx);
    const eventFds = [dupFd(lines[1]!)];
    apply(dataEventFd | actionUnmask, { index: intx, count: 1, eventFds });
    expect(hardware.irqs.at(-1)?.flags).toBe(dataEventFd | actionUnmask);
    expect(openFds()).toBe(open + 1);
  });
});

describe('a level-triggered vector', () => {
  const line = () => drainEventFd(lines[0]!);
  const unmask = () => apply(dataNone | actionUnmask, { index: intx, count: 1 });

  it('is signalled once, and again by each unmasking while it is asserted', () => {
    bind(0, [lines[0]!], intx);
    interrupts.drive(intx, 0, true);
    interrupts.drive(intx, 0, true);
    expect(line()).toBe(1n);
    unmask();
    expect(line()).toBe(1n);
    interrupts.drive(intx, 0, false);
    unmask();
    expect(line()).toBe(0n);
    interrupts.drive(intx, 0, true);
    expect(line()).toBe(1n);
    expect(interrupts.raised).toBe(3);
  });

  it('that is deasserted before it is unmasked was nothing to tell of', () => {
    bind(0, [lines[0]!], intx);
    apply(dataNone | actionMask, { index: intx, count: 1 });
    interrupts.drive(intx, 0, true);
    interrupts.drive(intx, 0, false);
    unmask();
    expect(line()).toBe(0n);
  });

  it("is the device's, not the session's: who binds an eventfd while it is asserted hears of it at once", () => {
    interrupts.drive(intx, 0, true);
    bind(0, [lines[0]!], intx);
    expect(line()).toBe(1n);
    apply(dataNone | actionTrigger, { index: intx, count: 0 });
    bind(0, [lines[0]!], intx);
    expect(line()).toBe(1n);
  });
});

describe('an index that cannot be masked', () => {
  it.each([
    ['masking', actionMask],
    ['unmasking', actionUnmask],
  ])('answers %s with EINVAL and is raised as before', (_, action) => {
    bind(0, [lines[0]!], req);
    refused(dataNone | action, { index: req, count: 1 });
    expect(interrupts.raise(req, 0)).toBe(true);
    expect(drainEventFd(lines[0]!)).toBe(1n);
  });
});

describe('requests that make no sense', () => {
  it.each<[string, number, Partial<IrqRequest>]>([
    ['an index that does not exist', BIND, { index: 5 }],
    ['more vectors than there are', dataNone | actionTrigger, { count: 5 }],
    ['a range that leaves the index', dataNone | actionTrigger, { start: 3, count: 2 }],
    ['a range that wraps', dataNone | actionTrigger, { start: 0xffff_ffff, count: 1 }],
    ['an index without vectors', dataNone | actionTrigger, { index: 1, count: 1 }],
    ['no data form', actionTrigger, {}],
    ['two data forms', dataNone | dataBool | actionTrigger, {}],
    ['no action', dataNone, {}],
    ['two actions', dataNone | actionMask | actionTrigger, {}],
    ['count 0 of anything but disabling', dataNone | actionMask, { count: 0 }],
    ['disabling from the middle', dataNone | actionTrigger, { start: 1, count: 0 }],
    ['too few booleans', dataBool | actionTrigger, { bools: [true] }],
  ])('%s: EINVAL', (_, flags, change) => {
    refused(flags, change);
    expect(hardware.irqs).toEqual([]);
  });

  it('fewer eventfds than vectors: EINVAL, and they are closed', () => {
    refused(BIND, { eventFds: [dupFd(lines[0]!)] });
    expect(raisedLines()).toEqual([]);
  });

  it('eventfds where none are asked for: EINVAL, and they are closed', () => {
    refused(dataNone | actionTrigger, { eventFds: lines.map(dupFd) });
  });
});

describe('replaying', () => {
  it('gives a new function the vectors as they are, holes and all', () => {
    bind();
    apply(BIND, { start: 1, count: 1 });
    hardware.irqs.length = 0;
    interrupts.replay(hardware);
    expect(hardware.irqs).toMatchObject([{ index: msix, start: 0, count: 4, flags: BIND }]);
    const fds = hardware.irqs[0]?.eventFds ?? [];
    expect(fds.map((fd) => fd === -1)).toEqual([false, true, false, false]);
  });

  it('enables an index that the client has enabled without any eventfd', () => {
    apply(BIND, { count: 1 });
    hardware.irqs.length = 0;
    interrupts.replay(hardware);
    expect(hardware.irqs).toMatchObject([{ index: msix, count: 1, eventFds: [-1] }]);
  });

  it('leaves an index alone that was never enabled, or was disabled', () => {
    bind();
    apply(dataNone | actionTrigger, { count: 0 });
    hardware.irqs.length = 0;
    interrupts.replay(hardware);
    expect(hardware.irqs).toEqual([]);
  });
});

describe('the end of a session', () => {
  it('disables in the hardware what was enabled, and closes every eventfd', () => {
    bind();
    hardware.irqs.length = 0;
    interrupts.clear(hardware, () => {});
    expect(hardware.irqs).toEqual([
      { index: msix, start: 0, count: 0, flags: dataNone | actionTrigger },
    ]);
    expect(raisedLines()).toEqual([]);
  });

  it('closes them all even where the hardware refuses, and tells so', () => {
    const open = openFds();
    bind();
    bind(0, [lines[0]!], intx);
    hardware.refusesIrqs = true;
    const failures: string[] = [];
    interrupts.clear(hardware, ({ message }) => failures.push(message));
    expect(failures).toHaveLength(2);
    expect(openFds()).toBe(open);
  });
});
