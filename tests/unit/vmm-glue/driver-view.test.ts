// What `status --watch` shows of a driver: from the recording that is on, or from one of its own.

import { copyFileSync, rmSync } from 'node:fs';
import { expect, it } from 'vitest';
import type { TraceState } from '../../../protocol/hotplug/status.ts';
import { RemoteError } from '../../../vmm-glue/client/connection-errors.ts';
import { DriverView } from '../../../vmm-glue/commands/driver-view.ts';
import { MemoryTrace } from '../trace/ring.ts';

const OFF: TraceState = { on: false, records: 0, failure: null };

/** A recording on disk with one write of NumVFs. */
function recorded(numVfs: number, startedMonotonic = 0n): { path: string; state: TraceState } {
  const trace = new MemoryTrace({ startedMonotonic });
  trace.recorder.access(0, true, 7, 0x110 + 0x10, Uint8Array.of(numVfs, 0));
  const path = trace.save();
  return { path, state: { on: true, records: 1, path, failure: null } };
}

const withoutOwn = () => new DriverView({ watchTrace: () => Promise.reject(unknown()) });
const unknown = () => new RemoteError(0x8015, 38);

it('reads the recording that is on, and finds what it breaks', async () => {
  const view = withoutOwn();
  const { lines, finding } = await view.look(recorded(200).state);
  expect(lines).toEqual([expect.stringMatching(/pf {3}W SR-IOV NumVFs +0x00c8/)]);
  expect(finding?.rule).toBe('numvfs-above-totalvfs');
  view.close();
});

it('goes on with another recording that has begun meanwhile in the same place', async () => {
  const view = withoutOwn();
  const first = recorded(1);
  await view.look(first.state);
  copyFileSync(recorded(3, 1n).path, first.path);
  const { lines } = await view.look(first.state);
  expect(lines).toEqual([expect.stringContaining('0x0003')]);
  view.close();
});

it('shows nothing where the backend has no recording and can make none', async () => {
  const view = withoutOwn();
  expect(await view.look(OFF)).toEqual({});
  expect(await view.look(undefined)).toEqual({});
  view.close();
});

it('asks for a recording of its own once, where it may not read the one that is on', async () => {
  let asked = 0;
  const view = new DriverView({
    watchTrace: () => {
      asked++;
      return Promise.reject(unknown());
    },
  });
  const { path, state } = recorded(1);
  rmSync(path);
  expect(await view.look(state)).toEqual({});
  expect(await view.look(state)).toEqual({});
  expect(asked).toBe(1);
  view.close();
});
