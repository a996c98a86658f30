// "What survives what", the table of ARCHITECTURE.md, made by doing each thing to a device in full use.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Layout, Register } from '../../../backend/devices/loopback/registers.ts';
import { createEventFd } from '../../../protocol/unix/eventfd.ts';
import { closeFd } from '../../../protocol/unix/libc.ts';
import { IrqIndex } from '../../../protocol/vfio-user/commands.ts';
import { openFds } from '../protocol/unix/open-fds.ts';
import {
  AS_QEMU,
  At,
  BUS_MASTER,
  bar,
  bindVector0,
  DeviceUnderTest,
  functionLevelReset,
  MEMORY_SPACE,
  mapPage,
  read16,
  write16,
  writeBar,
} from './device-under-test.ts';

const SCRATCH = 0x77;
const PAGE_SIZE_8K = 2;
const VF_BAR = 0xd000;

let before: number;
let device: DeviceUnderTest;
let line: number;

/** QEMU with a PF and a slot, its guest with the VF in use: nothing is as it was after power-up. */
function setUp(): void {
  device = new DeviceUnderTest();
  line = createEventFd();
  const { pf, vf } = device;
  pf.attach(AS_QEMU);
  vf.attach(AS_QEMU);
  vf.reset(() => {});
  pf.reset(() => {});
  for (const served of [pf, vf]) {
    mapPage(served, 0x1000n);
    bindVector0(served, line);
  }
  write16(pf, At.systemPageSize, PAGE_SIZE_8K);
  write16(pf, At.vfBar0 + 2, VF_BAR);
  device.enable();
  vf.beginPlacement()();
  for (const served of [pf, vf]) {
    write16(served, At.command, MEMORY_SPACE | BUS_MASTER);
    writeBar(served, Register.scratch, SCRATCH);
    writeBar(served, Layout.memory, SCRATCH);
  }
}

function tearDown(): void {
  device.close();
  closeFd(line);
}

beforeEach(() => {
  before = openFds();
  setUp();
});
afterEach(() => {
  tearDown();
  expect(openFds()).toBe(before);
});

const EVENTS: Readonly<Record<string, () => void>> = {
  'FLR of the PF': () => functionLevelReset(device.pf),
  'DEVICE_RESET of the PF': () => device.pf.reset(() => {}),
  'the PF’s client goes': () => device.pf.detach(),
  'FLR of the VF': () => functionLevelReset(device.vf),
  'DEVICE_RESET of the slot': () => device.vf.reset(() => {}),
  'the slot’s client goes': () => device.vf.detach(),
};

function isScratchKept(index: 'pf' | 'vf'): boolean {
  return bar(device[index], Register.scratch)[0] === SCRATCH;
}

/** Each state, and whether it is still as it was. */
const STATES: Readonly<Record<string, () => boolean>> = {
  'PF registers': () => isScratchKept('pf'),
  'PF Command': () => read16(device.pf, At.command) === (MEMORY_SPACE | BUS_MASTER),
  'PF memory pages': () => bar(device.pf, Layout.memory)[0] === SCRATCH,
  'PF eventfds': () => device.pf.interrupts.raise(IrqIndex.msix, 0),
  'PF DMA windows': () => device.pf.memory.windows.size === 1,
  'PF extended space shown': () => read16(device.pf, At.sriov) === 0x0010,
  'VF Enable, NumVFs': () => device.pf.sriov.vfEnable && device.pf.sriov.numVfs === 1,
  'System Page Size': () => device.pf.sriov.systemPageSize === 8192,
  'VF BARs': () => device.pf.sriov.vfBarAddress(0, 0) === BigInt(VF_BAR) << 16n,
  'VF up': () => device.vf.state === 'up',
  'VF registers': () => isScratchKept('vf'),
  'VF Bus Master Enable': () => (read16(device.vf, At.command) & BUS_MASTER) !== 0,
  'VF memory pages': () => bar(device.vf, Layout.memory)[0] === SCRATCH,
  'slot Memory Space Enable': () => (read16(device.vf, At.command) & MEMORY_SPACE) !== 0,
  'slot placement': () => !device.vf.placementLost,
  'slot eventfds': () => device.vf.interrupts.raise(IrqIndex.msix, 0),
  'slot DMA windows': () => device.vf.memory.windows.size === 1,
  'slot extended space shown': () => read16(device.vf, 0x100) !== 0,
};

function survivors(): string[] {
  return Object.keys(STATES).filter((name) => STATES[name]!());
}

/** One column for each event, each done to a device of its own. */
function table(): string {
  const columns = Object.values(EVENTS).map((event) => {
    tearDown();
    setUp();
    event();
    return survivors();
  });
  const rows = Object.keys(STATES).map((name) => {
    const marks = columns.map((kept) => (kept.includes(name) ? '+' : '.'));
    return `${marks.join(' ')}  ${name}`;
  });
  return [Object.keys(EVENTS).join(' | '), ...rows].join('\n');
}

describe('what survives what', () => {
  it('starts with everything in use', () => {
    expect(survivors()).toEqual(Object.keys(STATES));
  });

  it('is this', () => {
    // Rows: + kept, . lost or gone. Columns: in the order of EVENTS.
    expect(table()).toMatchInlineSnapshot(`
      "FLR of the PF | DEVICE_RESET of the PF | the PF’s client goes | FLR of the VF | DEVICE_RESET of the slot | the slot’s client goes
      . . + + + +  PF registers
      . . . + + +  PF Command
      + + + + + +  PF memory pages
      + + . + + +  PF eventfds
      + + . + + +  PF DMA windows
      + + . + + +  PF extended space shown
      . . . + + +  VF Enable, NumVFs
      . . . + + +  System Page Size
      . . . + + +  VF BARs
      . . . + + +  VF up
      . . . . . +  VF registers
      + + + . . .  VF Bus Master Enable
      . . . + + +  VF memory pages
      + + + + . .  slot Memory Space Enable
      + + + + . .  slot placement
      + + + + + .  slot eventfds
      + + + + + .  slot DMA windows
      + + + + + .  slot extended space shown"
    `);
  });
});
