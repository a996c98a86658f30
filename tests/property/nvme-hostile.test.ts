// A driver that means harm: whatever it writes, the controller answers by the standard's rules, nothing is thrown, and
// nothing is written but where the guest has memory.
import fc from 'fast-check';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { DOORBELLS } from '../../backend/devices/nvme/spec/registers.ts';
import { MEMORY_BYTES, type NvmeDriver, NvmeUnderTest } from '../fakes/nvme-driver.ts';
import { openFds } from '../unit/protocol/unix/open-fds.ts';

const ENTRIES_IN_ALL = 100_000;
const RUNS = 500;
const PER_RUN = ENTRIES_IN_ALL / RUNS;

let before: number;
let device: NvmeUnderTest;
let driver: NvmeDriver;

beforeEach(() => {
  before = openFds();
  device = new NvmeUnderTest();
  driver = device.open();
});

afterEach(() => {
  device.close();
  expect(openFds()).toBe(before);
  expect(device.lines.filter((line) => line.startsWith('error'))).toEqual([]);
});

/** Numbers that mean something more often than chance would have it. */
const dword = fc.oneof(
  fc.nat(16),
  fc.integer({ min: 0, max: 0xffff_ffff }),
  fc.constantFrom(0xffff_ffff, 0x8000_0000, 0xffff, 0x0001_0001, 0x0003_0003),
);
const address = fc.oneof(
  fc.nat(MEMORY_BYTES / 4096).map((page) => page * 4096),
  fc.nat(MEMORY_BYTES),
  fc.constantFrom(MEMORY_BYTES - 4, Number.MAX_SAFE_INTEGER, 0),
);
const entry = fc.record({
  opcode: fc.oneof(fc.nat(0xff), fc.constantFrom(0, 1, 2, 5, 6, 8, 9, 0xa, 0xc, 0x1c, 0x7c)),
  namespaceId: fc.oneof(fc.constant(1), dword),
  prp1: address,
  prp2: address,
  dwords: fc.array(dword, { minLength: 6, maxLength: 6 }),
});

it('100,000 random commands are all answered for, on the admin queue and on an I/O queue', () => {
  const memory = driver.memory;
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(1), entry), { minLength: PER_RUN, maxLength: PER_RUN }),
      (entries) => {
        driver.set('configuration', 0);
        memory.fill(0);
        driver.forget();
        driver.enable();
        driver.createPair(1);
        for (const [queue, each] of entries) {
          driver.put(queue, each);
          driver.ring(queue);
          driver.take(queue);
        }
        driver.set('configuration', 0);
        expect(driver.get('status')).toBe(0);
      },
    ),
    { numRuns: RUNS },
  );
}, 120_000);

it('registers and doorbells take anything, at any place and of any size', () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.tuple(
          fc.oneof(
            fc.nat(0x3fff),
            fc.nat(0x38),
            fc.nat(64).map((at) => DOORBELLS + 4 * at),
          ),
          fc.uint8Array({ minLength: 1, maxLength: 8 }),
        ),
        { maxLength: 50 },
      ),
      (writes) => {
        for (const [offset, bytes] of writes) {
          const fits = bytes.subarray(0, 0x4000 - offset);
          driver.function.writeRegion(0, offset, fits);
          driver.function.readRegion(0, offset, fits);
        }
        driver.function.reset(() => {});
        expect(driver.get('status')).toBe(0);
      },
    ),
    { numRuns: 300 },
  );
});
