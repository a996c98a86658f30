// What a driver sees when something goes wrong with an NVMe controller on purpose.
import { afterEach, beforeEach, expect, it } from 'vitest';
import { describeDevice } from '../../../../backend/devices/kit/describe.ts';
import { declareNvme } from '../../../../backend/devices/nvme/device.ts';
import { NVME_FAULTS } from '../../../../backend/devices/nvme/fault-language.ts';
import { AdminOpcode, IoOpcode } from '../../../../backend/devices/nvme/spec/commands.ts';
import { Status } from '../../../../backend/devices/nvme/spec/status.ts';
import { ArmedFaults } from '../../../../backend/faults/armed-faults.ts';
import { logInto } from '../../../../protocol/log.ts';
import { ManualClock } from '../../../fakes/manual-clock.ts';
import { type NvmeDriver, NvmeUnderTest } from '../../../fakes/nvme-driver.ts';

const FATAL = 2;
const SHAPE = {
  totalVfs: 2,
  vfs: 'online',
  serialNumber: 'TEST',
  uuid: new Uint8Array(16),
} as const;

let faults: ArmedFaults;
let device: NvmeUnderTest;
let driver: NvmeDriver;

beforeEach(() => {
  const clock = new ManualClock();
  faults = new ArmedFaults({
    device: {
      kind: 'nvme',
      faults: NVME_FAULTS,
      description: describeDevice(declareNvme({ ...SHAPE, namespaces: [] })),
    },
    clock,
    log: logInto(() => {}),
    functions: () => [],
  });
  device = new NvmeUnderTest({}, 1 << 20, clock, faults);
  driver = device.open();
  driver.enable();
  driver.createPair(1);
});
afterEach(() => device.close());

const read = (to: number) => ({
  opcode: IoOpcode.read,
  namespaceId: 1,
  prp1: to,
  dwords: [0, 0, 0],
});

it('a command is completed with the status that was asked for, and is not carried out', () => {
  faults.add('nvme:status=unrecovered-read-error@opcode=read,every=2');
  const to = driver.allocate(4096);
  driver.memory.fill(0xaa, to, to + 512);
  expect(driver.command(1, read(to)).status).toBe(Status.success);
  driver.memory.fill(0xaa, to, to + 512);
  expect(driver.command(1, read(to))).toMatchObject({
    status: Status.unrecoveredReadError,
    doNotRetry: true,
  });
  expect(driver.memory.subarray(to, to + 512).every((byte) => byte === 0xaa)).toBe(true);
  expect(driver.command(1, { opcode: IoOpcode.flush, namespaceId: 1 }).status).toBe(Status.success);
});

it('a command that is dropped is never completed, and those behind it are', () => {
  faults.add('nvme:drop@times=1');
  const dropped = driver.put(1, { opcode: IoOpcode.flush, namespaceId: 1 });
  const next = driver.put(1, { opcode: IoOpcode.flush, namespaceId: 1 });
  driver.ring(1);
  device.clock.elapse(1);
  expect(driver.take(1).map(({ identifier }) => identifier)).toEqual([next]);
  expect(dropped).not.toBe(next);
});

it('admin commands are spoilt by their names only', () => {
  faults.add('nvme:status=internal-error');
  const features = { opcode: AdminOpcode.getFeatures, dwords: [7] };
  expect(driver.admin(features).status).toBe(Status.success);
  faults.add('nvme:status=internal-error@opcode=get-features');
  expect(driver.admin(features).status).toBe(Status.internalError);
});

it('Controller Fatal Status stops everything until a reset', () => {
  faults.add('nvme:csts-cfs');
  driver.put(1, { opcode: IoOpcode.flush, namespaceId: 1 });
  driver.ring(1);
  device.clock.elapse(1);
  expect([driver.get('status') & FATAL, driver.take(1)]).toEqual([FATAL, []]);
  driver.set('configuration', 0);
  expect(driver.enable() & FATAL).toBe(0);
});
