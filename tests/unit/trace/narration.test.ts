import { expect, it } from 'vitest';
import { Observers } from '../../../backend/device/observer.ts';
import { decodedWrites, narration } from '../../../backend/trace/narration.ts';
import { logInto } from '../../../protocol/log.ts';
import { describeLoopback } from '../../fakes/loopback.ts';

const description = describeLoopback({ totalVfs: 4, vfBarSize: 16384, enableMilliseconds: 0 });

function logged() {
  const lines: string[] = [];
  const log = logInto((level, message) => lines.push(`${level} ${message}`));
  return { lines, log };
}

it('an enable, a disable and the resets are one line each', () => {
  const { lines, log } = logged();
  let now = 10;
  const later: (() => void)[] = [];
  const told = narration(
    log,
    () => now,
    (say) => later.push(say),
  );
  told.step?.({ type: 'vfEnableSet', numVfs: 3 }, 'disabled', 'creating');
  now = 60;
  told.step?.({ type: 'vfsCreated' }, 'creating', 'enabled');
  expect(lines).toEqual([]);
  now = 70;
  later.shift()!();
  told.step?.({ type: 'vfLost' }, 'enabled', 'enabled');
  told.reset?.('vf1', 'function');
  told.reset?.('vf1', 'device');
  told.reset?.('pf', 'device');
  told.step?.({ type: 'vfsDestroyed' }, 'destroying', 'disabled');
  expect(lines).toEqual([
    'info 3 VFs are up, 50 ms after VF Enable',
    'info vf1: function level reset by the guest',
    'debug vf1: reset by the VMM',
    'info pf: reset by the VMM',
    'info the VFs are gone',
  ]);
});

it('VFs that go before it was said that they are up, were up before they go', () => {
  const { lines, log } = logged();
  const later: (() => void)[] = [];
  const told = narration(
    log,
    () => 0,
    (say) => later.push(say),
  );
  told.step?.({ type: 'vfEnableSet', numVfs: 1 }, 'disabled', 'creating');
  told.step?.({ type: 'vfsCreated' }, 'creating', 'enabled');
  told.step?.({ type: 'vfEnableCleared' }, 'enabled', 'unplugging');
  told.step?.({ type: 'vfsDestroyed' }, 'destroying', 'disabled');
  later.shift()!();
  expect(lines).toEqual(['info 1 VF is up, 0 ms after VF Enable', 'info the VFs are gone']);
});

it('VFs that the host could not make are not said to be gone', () => {
  const { lines, log } = logged();
  const told = narration(
    log,
    () => 0,
    (say) => say(),
  );
  told.step?.({ type: 'vfEnableSet', numVfs: 3 }, 'disabled', 'creating');
  told.step?.({ type: 'createFailed' }, 'creating', 'disabled');
  expect(lines).toEqual([]);
});

it('each config write is one decoded line; reads are none, but are remembered', () => {
  const { lines, log } = logged();
  const told = decodedWrites(log, description);
  told.access?.('pf', true, 7, 0x118, Uint8Array.of(0x19, 0));
  told.access?.('pf', false, 7, 0x04, Uint8Array.of(0x02, 0));
  told.access?.('pf', true, 7, 0x04, Uint8Array.of(0x06, 0));
  told.access?.('pf', true, 0, 0x04, Uint8Array.of(0x06, 0));
  told.access?.('vf3', true, 7, 0x04, Uint8Array.of(0x04, 0));
  expect(lines).toEqual([
    'debug pf W SR-IOV Control 0x0019  vfEnable 0→1, vfMemorySpaceEnable 0→1, ariCapableHierarchy 0→1',
    'debug pf W Command 0x0006  busMasterEnable 0→1',
    'debug vf3 W Command 0x0004  busMasterEnable 0→1',
  ]);
});

it('the next VF is not taken for the one before: what a slot keeps is known, all else is as after a reset', () => {
  const { lines, log } = logged();
  const told = decodedWrites(log, description);
  const msix = 0xb0 + 2;
  const use = (): void => {
    told.access?.('vf0', true, 7, 0x04, Uint8Array.of(0x04, 0));
    told.access?.('vf0', true, 7, msix, Uint8Array.of(0x00, 0x80));
  };
  use();
  told.step?.({ type: 'vfEnableCleared' }, 'enabled', 'unplugging');
  use();
  told.session?.('vf0', 'gone', { role: 'device' });
  use();
  expect(lines).toEqual([
    'debug vf0 W Command 0x0004  busMasterEnable 0→1',
    'debug vf0 W MSI-X Message Control 0x8000  enable 0→1',
    'debug vf0 W Command 0x0004',
    'debug vf0 W MSI-X Message Control 0x8000  enable 0→1',
    'debug vf0 W Command 0x0004  busMasterEnable 0→1',
    'debug vf0 W MSI-X Message Control 0x8000  enable 0→1',
  ]);
});

it('whoever hears of resets alone makes no access cost anything', () => {
  const observers = new Observers();
  expect(observers.isEmpty).toBe(true);
  observers.add({ reset: () => {} });
  expect(observers.isEmpty).toBe(true);
  const writes = decodedWrites(logged().log, description);
  observers.add(writes);
  expect(observers.isEmpty).toBe(false);
  observers.remove(writes);
  expect(observers.isEmpty).toBe(true);
});
