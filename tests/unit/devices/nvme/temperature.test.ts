// Temperature Threshold: SMART says when the temperature is beyond one, and a host that wants it is told. NVM Express 1.4,
// "Temperature Threshold" and "Asynchronous Event Configuration".
import fc from 'fast-check';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { AdminOpcode } from '../../../../backend/devices/nvme/spec/commands.ts';
import { SMART } from '../../../../backend/devices/nvme/spec/logs.ts';
import { type NvmeDriver, NvmeUnderTest } from '../../../fakes/nvme-driver.ts';

const NOW = 300;
const UNDER = 1 << 20;
const Feature = { threshold: 0x04, events: 0x0b } as const;
const TEMPERATURE = 1 << 1;
const SMART_PAGE = 2;
const RETAIN = 1 << 15;
/** Type 1, SMART; information 1, Temperature Threshold; log page 2. */
const EVENT = 0x02_01_01;

let device: NvmeUnderTest;
let driver: NvmeDriver;

beforeEach(() => {
  device = new NvmeUnderTest();
  driver = device.open();
  driver.enable();
});
afterEach(() => {
  device.close();
});

function set(feature: number, value: number): void {
  driver.admin({ opcode: AdminOpcode.setFeatures, dwords: [feature, value] });
}

/** Critical Warning, as it is read; events may be told again unless `retains`. */
function warning({ retains = false } = {}): number {
  const to = 0x8_0000;
  const dword = (127 << 16) | SMART_PAGE | (retains ? RETAIN : 0);
  driver.admin({ opcode: AdminOpcode.getLogPage, prp1: to, dwords: [dword] });
  return SMART.decode(driver.memory, to).criticalWarning;
}

function awaitEvent(): void {
  driver.put(0, { opcode: AdminOpcode.asynchronousEventRequest });
  driver.ring(0);
}

/** Sets a feature, and gives the events that came behind its completion. */
function eventsAfter(feature: number, value: number): number[] {
  driver.put(0, { opcode: AdminOpcode.setFeatures, dwords: [feature, value] });
  driver.ring(0);
  return driver
    .take(0)
    .slice(1)
    .map(({ result }) => result);
}

it.each([
  ['at the upper one', NOW, true],
  ['below the upper one', NOW + 1, false],
  ['above the upper one', NOW - 1, true],
  ['at the lower one', UNDER | NOW, true],
  ['above the lower one', UNDER | (NOW - 1), false],
  ['below the lower one', UNDER | (NOW + 1), true],
])('SMART warns of a temperature %s or does not', (_, threshold, warns) => {
  set(Feature.threshold, threshold);
  expect(warning()).toBe(warns ? TEMPERATURE : 0);
});

it('it is told of once, and again when it has come back after the log was read', () => {
  set(Feature.events, TEMPERATURE);
  awaitEvent();
  expect(eventsAfter(Feature.threshold, NOW)).toEqual([EVENT]);
  awaitEvent();
  expect(eventsAfter(Feature.threshold, NOW - 1)).toEqual([]);
  set(Feature.threshold, NOW + 1);
  expect(warning({ retains: true })).toBe(0);
  expect(eventsAfter(Feature.threshold, NOW)).toEqual([]);
  set(Feature.threshold, NOW + 1);
  warning();
  expect(eventsAfter(Feature.threshold, NOW)).toEqual([EVENT]);
});

it('it is told of when it is asked for later, and forgotten by a reset', () => {
  awaitEvent();
  expect(eventsAfter(Feature.threshold, NOW)).toEqual([]);
  expect(eventsAfter(Feature.events, TEMPERATURE)).toEqual([EVENT]);
  driver.set('configuration', 0);
  driver.forget();
  driver.enable();
  expect(warning()).toBe(0);
});

it('a host that reads the log after each event is told each time that the warning begins while it is asked for', () => {
  const step = fc.record({
    feature: fc.constantFrom(Feature.threshold, Feature.events),
    kelvin: fc.integer({ min: NOW - 2, max: NOW + 2 }),
    isUnder: fc.boolean(),
    isTold: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
      driver.set('configuration', 0);
      driver.forget();
      driver.enable();
      const now = { over: NOW + 43, under: 0, isTold: false };
      let wasTold = false;
      awaitEvent();
      for (const { feature, kelvin, isUnder, isTold } of steps) {
        const value =
          feature === Feature.events
            ? Number(isTold) * TEMPERATURE
            : (isUnder ? UNDER : 0) | kelvin;
        const events = eventsAfter(feature, value);
        if (feature === Feature.events) {
          now.isTold = isTold;
        } else {
          now[isUnder ? 'under' : 'over'] = kelvin;
        }
        const tells = now.isTold && (NOW >= now.over || NOW <= now.under);
        expect(events).toEqual(tells && !wasTold ? [EVENT] : []);
        events.forEach(awaitEvent);
        expect(warning()).toBe(NOW >= now.over || NOW <= now.under ? TEMPERATURE : 0);
        wasTold = tells;
      }
    }),
  );
});
