import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { WINDOWS_OF_A_TURN } from '../../../backend/device/client-memory.ts';
import type { Hold } from '../../../backend/device/hold.ts';
import { EXTENDED_CONFIG_BYTES } from '../../../backend/pci/spec/header.ts';
import { WRITES_OF_A_TURN } from '../../../backend/server/handlers/replies.ts';
import { HANDLERS } from '../../../backend/server/handlers.ts';
import { Session } from '../../../backend/server/session.ts';
import { Errno } from '../../../protocol/errno.ts';
import { SILENT } from '../../../protocol/log.ts';
import { Command, RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { encodeFrame } from '../../../protocol/vfio-user/framing.ts';
import {
  DmaUnmap,
  RegionAccess,
  UnmapFlag,
  WriteMultiCount,
  WriteMultiEntry,
} from '../../../protocol/vfio-user/messages.ts';
import { encodeVersion } from '../../../protocol/vfio-user/version.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';
import { RecordingConnection } from '../../fakes/recording-connection.ts';
import {
  At,
  BUS_MASTER,
  DeviceUnderTest,
  MEMORY_SPACE,
  mapPage,
} from '../device/device-under-test.ts';

let device: DeviceUnderTest;
let connection: RecordingConnection;
let session: Session;

beforeEach(() => {
  device = new DeviceUnderTest();
  connection = new RecordingConnection();
  session = new Session(
    connection,
    { function: device.pf, native: true },
    HANDLERS,
    SILENT,
    new ManualClock(),
  );
  ask(Command.version, encodeVersion(0, 1, { write_multiple: true }));
});
afterEach(() => {
  session.close();
  device.close();
});

/** Sends a command; gives those that were answered. */
function ask(command: number, body: Uint8Array): number[] {
  session.receive(encodeFrame({ id: 1, command, flags: 0 }, body), []);
  return answered();
}

function answered(): number[] {
  return connection.takeSent().map(({ command }) => command);
}

/** So many turns until nothing waits for one any more. */
function turns(): number {
  let count = 0;
  for (; connection.isCalledLater; count++) {
    connection.isCalledLater = false;
    session.resume();
  }
  return count;
}

function writeOf(offset: number, value: number): Uint8Array {
  const body = new Uint8Array(RegionAccess.size + 2);
  RegionAccess.encode({ offset: BigInt(offset), region: RegionIndex.config, count: 2 }, body);
  body[RegionAccess.size] = value;
  return body;
}

function writesOf(...writes: (readonly [offset: number, value: number])[]): Uint8Array {
  const body = new Uint8Array(WriteMultiCount.size + writes.length * WriteMultiEntry.size);
  WriteMultiCount.encode({ count: BigInt(writes.length) }, body);
  writes.forEach(([offset, value], i) => {
    const entry = { offset: BigInt(offset), region: RegionIndex.config, count: 2 };
    const at = WriteMultiCount.size + i * WriteMultiEntry.size;
    WriteMultiEntry.encode({ ...entry, data: BigInt(value) }, body, at);
  });
  return body;
}

describe.each([
  ['REGION_WRITE', Command.regionWrite, writeOf(At.numVfs, 1)],
  ['REGION_WRITE_MULTI', Command.regionWriteMulti, writesOf([At.numVfs, 1])],
])('the answer to %s', (_, command, body) => {
  let holds: Hold[];
  beforeEach(() => {
    holds = [device.pf.holdAnswer(), device.pf.holdAnswer()];
  });

  it.each([
    ['in their order', [0, 1]],
    ['the last one first', [1, 0]],
  ])('waits for everything that holds it back, which ends %s', (_order, order) => {
    expect(ask(command, body)).toEqual([]);
    holds[order[0]!]!.release();
    expect(answered()).toEqual([]);
    holds[order[1]!]!.release();
    expect(answered()).toEqual([command]);
  });

  it('comes at once where all of that is over', () => {
    for (const hold of holds) {
      hold.release();
    }
    expect(ask(command, body)).toEqual([command]);
  });
});

it.each([
  ['REGION_WRITE', Command.regionWrite, writeOf(EXTENDED_CONFIG_BYTES, 1)],
  [
    'REGION_WRITE_MULTI',
    Command.regionWriteMulti,
    writesOf([At.numVfs, 1], [EXTENDED_CONFIG_BYTES, 1]),
  ],
])('%s that fails says so when nothing that it began holds the answer back', (_, command, body) => {
  const hold = device.pf.holdAnswer();
  expect(ask(command, body)).toEqual([]);
  hold.release();
  expect(connection.takeSent()).toMatchObject([{ command, error: Errno.EINVAL }]);
  expect(ask(Command.regionWrite, writeOf(At.numVfs, 1))).toEqual([Command.regionWrite]);
});

it('REGION_WRITE_MULTI that fails at its second write waits for what the first began', () => {
  device.pf.hostBusy(true);
  expect(
    ask(Command.regionWriteMulti, writesOf([At.command, MEMORY_SPACE], [EXTENDED_CONFIG_BYTES, 1])),
  ).toEqual([]);
  device.pf.hostBusy(false);
  expect(connection.takeSent()).toMatchObject([{ error: Errno.EINVAL }]);
});

it('REGION_WRITE_MULTI with Command in it is answered when a host that is busy has it', () => {
  device.pf.hostBusy(true);
  const body = writesOf([At.command, MEMORY_SPACE], [At.numVfs, 1], [At.command, BUS_MASTER]);
  expect(ask(Command.regionWriteMulti, body)).toEqual([]);
  device.pf.hostBusy(false);
  expect(answered()).toEqual([Command.regionWriteMulti]);
});

describe('REGION_WRITE_MULTI of more writes than a turn has room for', () => {
  const MANY = 10 * WRITES_OF_A_TURN + 1;
  const last = MANY % 200;
  /** NumVFs is written with another value each time. */
  const many = (...more: [number, number][]): Uint8Array =>
    writesOf(
      ...Array.from({ length: MANY }, (_, i): [number, number] => [At.numVfs, (i + 1) % 200]),
      ...more,
    );

  it('is carried out in turns, and what came behind it waits', () => {
    const writes = many();
    session.receive(
      encodeFrame({ id: 1, command: Command.regionWriteMulti, flags: 0 }, writes),
      [],
    );
    writes.fill(0);
    session.receive(
      encodeFrame({ id: 2, command: Command.regionWrite, flags: 0 }, writeOf(At.numVfs, 1)),
      [],
    );
    expect(device.pf.sriov.numVfs).toBe(WRITES_OF_A_TURN);
    expect(connection.isHeld).toBe(true);
    expect(answered()).toEqual([]);
    expect(turns()).toBe(10);
    expect(answered()).toEqual([Command.regionWriteMulti, Command.regionWrite]);
    expect(device.pf.sriov.numVfs).toBe(1);
    expect(connection.isHeld).toBe(false);
  });

  it('waits for everything that it began, and says that one of the last failed', () => {
    device.pf.hostBusy(true);
    expect(
      ask(
        Command.regionWriteMulti,
        many([At.command, MEMORY_SPACE], [EXTENDED_CONFIG_BYTES, 1], [At.numVfs, 99]),
      ),
    ).toEqual([]);
    turns();
    expect(answered()).toEqual([]);
    device.pf.hostBusy(false);
    expect(connection.takeSent()).toMatchObject([{ error: Errno.EINVAL }]);
    expect(device.pf.sriov.numVfs).toBe(last);
  });

  it('goes no further when its client has gone', () => {
    expect(ask(Command.regionWriteMulti, many())).toEqual([]);
    session.disconnected();
    turns();
    expect(connection.takeSent()).toEqual([]);
    expect(device.pf.sriov.numVfs).toBe(0);
  });
});

describe('DMA_UNMAP of more windows than a turn has room for', () => {
  const MANY = 3 * WINDOWS_OF_A_TURN + 1;
  const everything = DmaUnmap.encode({
    argsz: DmaUnmap.size,
    flags: UnmapFlag.all,
    address: 0n,
    size: 0n,
  });

  beforeEach(() => {
    for (let page = 0n; page < MANY; page++) {
      mapPage(device.pf, page * 4096n);
    }
  });

  it('is carried out in turns, and what came behind it waits', () => {
    expect(ask(Command.dmaUnmap, everything)).toEqual([]);
    expect(ask(Command.regionWrite, writeOf(At.numVfs, 1))).toEqual([]);
    expect(device.pf.memory.windows.size).toBe(MANY - WINDOWS_OF_A_TURN);
    expect(turns()).toBe(3);
    expect(answered()).toEqual([Command.dmaUnmap, Command.regionWrite]);
    expect(device.pf.memory.windows.size).toBe(0);
    expect(device.pfHardware.unmapped).toHaveLength(MANY);
  });

  it('leaves the rest to the end of its client, where that has gone', () => {
    expect(ask(Command.dmaUnmap, everything)).toEqual([]);
    session.disconnected();
    expect(turns()).toBe(1);
    expect(answered()).toEqual([]);
    expect(device.pf.memory.windows.size).toBe(0);
    expect(device.pfHardware.unmapped).toHaveLength(WINDOWS_OF_A_TURN);
    expect(device.pfHardware.unmappedAll).toBe(1);
  });
});
