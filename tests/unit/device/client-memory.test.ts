// Memory of a client that has many windows, handed to hardware that is opened after they were mapped: in turns, and right
// whatever the client does between them.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ClientMemory, WINDOWS_OF_A_TURN } from '../../../backend/device/client-memory.ts';
import type {
  DeviceFunction,
  DmaWindow,
  Done,
  HostError,
} from '../../../backend/device/physical-device.ts';
import { closeFd } from '../../../protocol/unix/libc.ts';
import { createMemfd, dupFd } from '../../../protocol/unix/memory.ts';

const PAGE = 4096n;
const COUNT = 2 * WINDOWS_OF_A_TURN + 100;

let memory: ClientMemory;
let file: number;
let hardware: DeviceFunction | undefined;
/** What the hardware has, by address. */
let known: Map<bigint, DmaWindow>;
let waiting: (() => void)[];
/** How often the hardware was asked for something. */
let asked: number;

beforeEach(() => {
  memory = new ClientMemory(() => hardware);
  file = createMemfd('guest', 4096);
  hardware = undefined;
  known = new Map();
  waiting = [];
  asked = 0;
});
afterEach(() => {
  memory.clear(() => {});
  closeFd(file);
});

const later = (rest: () => void): void => void waiting.push(rest);
const failed = (error: HostError): void => {
  throw error;
};

function map(address: bigint, done: Done = () => {}): void {
  const access = { fileOffset: 0n, readable: true, writable: true };
  memory.map({ address, size: PAGE, fd: dupFd(file), ...access }, done);
}

function unmap(address: bigint): void {
  memory.unmap(address, PAGE, () => {}, later);
}

function mapMany(): void {
  for (let page = 0; page < COUNT; page++) {
    map(BigInt(page) * PAGE);
  }
}

/** Hardware that refuses what it has already, and to unmap what it has not. */
function openHardware(): DeviceFunction {
  hardware = {
    mapDma: (window: DmaWindow, done: Done) => {
      asked++;
      expect(known.has(window.address)).toBe(false);
      known.set(window.address, window);
      done();
    },
    unmapDma: ({ address }: DmaWindow, done: Done) => {
      asked++;
      expect(known.delete(address)).toBe(true);
      done();
    },
    unmapAllDma: (done: Done) => {
      asked++;
      known.clear();
      done();
    },
  } as unknown as DeviceFunction;
  return hardware;
}

/** One turn of the loop; gives whether more is to come. */
function turn(): boolean {
  for (const rest of waiting.splice(0)) {
    rest();
  }
  return waiting.length > 0;
}

function handOver(): { sizes: number[]; isDone: () => boolean } {
  const sizes: number[] = [];
  let isDone = false;
  const tell = (windows: readonly DmaWindow[]): void => {
    sizes.push(windows.length);
    for (const window of windows) {
      known.set(window.address, window);
    }
  };
  memory.handOver(tell, later, () => {
    isDone = true;
  });
  return { sizes, isDone: () => isDone };
}

function replay(): () => boolean {
  let isDone = false;
  memory.replayOnto(openHardware(), failed, later, () => {
    isDone = true;
  });
  return () => isDone;
}

/** Hardware was told of all, and more has changed since than a turn has room for. */
function replayBehindChanges(): () => boolean {
  mapMany();
  handOver();
  while (turn()) {}
  for (let page = 0n; page < 300n; page++) {
    unmap(page * PAGE);
    map(page * PAGE);
  }
  return replay();
}

function expectAllKnown(): void {
  expect([...known.keys()].sort()).toEqual(memory.windows.all.map(({ address }) => address).sort());
}

it('is told in turns of so many windows', () => {
  mapMany();
  const { sizes, isDone } = handOver();
  expect([sizes, isDone()]).toEqual([[256], false]);
  expect(turn()).toBe(true);
  expect(turn()).toBe(false);
  expect([sizes, isDone()]).toEqual([[256, 256, 100], true]);
  expect(replay()()).toBe(true);
  expectAllKnown();
});

it('is told at once where there is little of it', () => {
  map(0n);
  const { sizes, isDone } = handOver();
  expect([sizes, isDone(), waiting]).toEqual([[1], true, []]);
  expect(replay()()).toBe(true);
});

it('is right where the client unmaps and maps while it is told, and while the hardware is opened', () => {
  mapMany();
  handOver();
  const told = 10n * PAGE;
  const untold = BigInt(COUNT - 10) * PAGE;
  const change = (address: bigint): void => {
    unmap(address);
    map(address);
    unmap(address + PAGE);
    map(BigInt(COUNT) * PAGE + address);
  };
  change(told);
  change(untold);
  turn();
  turn();
  change(told + 20n * PAGE);
  expect(replay()()).toBe(true);
  expectAllKnown();
});

it('is right where more has changed than a turn has room for, and goes on changing', () => {
  const isDone = replayBehindChanges();
  expect(isDone()).toBe(false);
  const answered: bigint[] = [];
  unmap(299n * PAGE);
  map(299n * PAGE, () => answered.push(299n));
  expect(answered).toEqual([]);
  while (turn()) {}
  expect(isDone()).toBe(true);
  expect(answered).toEqual([299n]);
  expectAllKnown();
});

it('is all mapped, in turns, of hardware that was told nothing', () => {
  mapMany();
  const isDone = replay();
  expect([known.size, isDone()]).toEqual([256, false]);
  while (turn()) {}
  expect(isDone()).toBe(true);
  expectAllKnown();
});

it('keeps nobody waiting for hardware that goes before it has all', () => {
  mapMany();
  const isDone = replay();
  const answered: string[] = [];
  map(BigInt(COUNT) * PAGE, () => answered.push('mapped'));
  hardware = undefined;
  memory.hardwareGone();
  expect(answered).toEqual(['mapped']);
  const { size } = known;
  while (turn()) {}
  expect([known.size, isDone()]).toEqual([size, false]);
});

describe('of a client that goes', () => {
  it('is all unmapped at one request, however much it was', () => {
    openHardware();
    mapMany();
    asked = 0;
    let isDone = false;
    memory.clear(() => {
      isDone = true;
    });
    expect([asked, known.size, memory.windows.size, isDone]).toEqual([1, 0, 0, true]);
  });

  it('is followed by that of the next client, at the same addresses', () => {
    openHardware();
    mapMany();
    memory.clear(() => {});
    map(0n);
    expectAllKnown();
  });

  it('is forgotten where nothing is behind it', () => {
    mapMany();
    let isDone = false;
    memory.clear(() => {
      isDone = true;
    });
    expect([memory.windows.size, isDone]).toEqual([0, true]);
  });

  it('is taken from hardware that was told of it and is opened later, whatever the next client has mapped', () => {
    mapMany();
    const { isDone } = handOver();
    unmap(0n);
    map(0n);
    memory.clear(() => {});
    map(10n * PAGE);
    while (turn()) {}
    expect(isDone()).toBe(true);
    map(BigInt(COUNT) * PAGE);
    expect(replay()()).toBe(true);
    expectAllKnown();
  });

  it('keeps nobody waiting, and is not mapped any more, while hardware is told what has changed', () => {
    const isDone = replayBehindChanges();
    const answered: string[] = [];
    unmap(299n * PAGE);
    map(299n * PAGE, () => answered.push('the first client'));
    memory.clear(() => {});
    map(0n, () => answered.push('the next client'));
    while (turn()) {}
    expect(isDone()).toBe(true);
    expect(answered).toEqual(['the first client', 'the next client']);
    expectAllKnown();
  });
});
