// A QEMU that ends, and another that comes after it, while the glue stays: what held of the one does not hold of the other.
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { SILENT } from '../../../protocol/log.ts';
import { FakeQemu } from '../../fakes/qemu-monitor.ts';
import { SOON } from '../../patience.ts';
import { DONE, GlueRig } from './glue-rig.ts';

let rig: GlueRig;
let next: FakeQemu;
const log = { ...SILENT, error: vi.fn() };

beforeEach(async () => {
  rig = await GlueRig.start();
  log.error.mockClear();
  next = new FakeQemu(rig.qemu.path);
  next.functions = rig.qemu.functions;
  // Its owner, as libvirt does, lets it run later; the guest has set up nothing.
  next.isRunning = false;
  next.status = 'prelaunch';
  next.barAddress = -1;
});

afterEach(async () => {
  await rig.end();
  await next.vanish();
});

/** Until the glue has found the devices of the QEMU that came, and looked out for its RAM. */
async function isKnown(): Promise<void> {
  await vi.waitFor(() => expect(next.commands).toContain('migrate-set-capabilities'), SOON);
}

it('one that was paused by its owner stays so, though the glue had paused the one before, and the line breaks once more', async () => {
  await rig.attach({ log });
  await rig.backend.begin(1);
  await rig.guestIsPaused();
  await rig.qemu.vanish();
  next.react('query-target', 'disconnect');
  await next.listen();
  rig.backend.end('failed');
  await isKnown();
  expect(next.commands).not.toContain('cont');
  expect(next.isRunning).toBe(false);
});

it('one that begins to run is none whose devices were reset behind its guest’s back', async () => {
  await rig.attach({ log });
  await rig.enable(1);
  await rig.qemu.vanish();
  await next.listen();
  await isKnown();
  const asked = next.commands.length;
  next.emit('RESUME');
  await vi.waitFor(() => expect(next.commands.slice(asked)).toContain('query-pci'), SOON);
  rig.qemu = next;
  expect(await rig.enable(1)).toEqual([DONE, DONE]);
  expect(log.error).not.toHaveBeenCalled();
});

it('one that its owner lets run at the beginning of an enable is paused for that, and written to where it has its devices', async () => {
  await rig.attach({ log });
  await rig.enable(1);
  await rig.qemu.vanish();
  next.functions = rig.qemu.functions.map((each) => ({ ...each, devfn: each.devfn + 0x20 }));
  await next.listen();
  await isKnown();
  next.emit('RESUME');
  rig.qemu = next;
  expect(await rig.enable(1)).toEqual([DONE, DONE]);
  expect(next.register(1, 1, 0x10)).toBeUndefined();
  expect(next.register(1, 0x21, 4)).toBe(2);
  expect(next.unsafeWrites).toBe(0);
});
