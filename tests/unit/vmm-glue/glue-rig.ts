// The glue between a fake QEMU and fake backends, for the tests of each part of what it does.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, vi } from 'vitest';
import { SILENT } from '../../../protocol/log.ts';
import type { EnableTiming } from '../../../vmm-glue/choreography/enable.ts';
import { type GlueOptions, QemuGlue } from '../../../vmm-glue/qemu/glue.ts';
import { FakeBackend } from '../../fakes/hotplug-backend.ts';
import { FakeQemu } from '../../fakes/qemu-monitor.ts';
import { SOON } from '../../patience.ts';

/** The socket of the PF that QEMU has at 01:00.0, with two slots beside it. */
export const PF = '/run/backend/pf.sock';
/** That of the PF that attachToTwo adds. */
const PF2 = '/run/other/pf.sock';
export const LOG = SILENT;
/** A backend's event, answered as it should be. */
export const DONE = { result: 'done', errno: 0, text: '' };

/** Lets everything happen that waits for no other process. */
export function allIsDone(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export class GlueRig {
  readonly folder = mkdtempSync(join(tmpdir(), 'glue-'));
  /** The one that is there now. */
  qemu = new FakeQemu(join(this.folder, 'qmp'));
  readonly timings: EnableTiming[] = [];
  backend = new FakeBackend();
  /** What attach() has started and the test has not ended. */
  glue: QemuGlue | undefined;

  static async start(): Promise<GlueRig> {
    const rig = new GlueRig();
    rig.qemu.functions = [
      { id: 'sriov-pf0', bus: 1, devfn: 0, socketPath: PF },
      { id: 'sriov-pf0-vf0', bus: 1, devfn: 1, socketPath: '/run/backend/vf0.sock' },
      { id: 'sriov-pf0-vf1', bus: 1, devfn: 2, socketPath: '/run/backend/vf1.sock' },
    ];
    await rig.qemu.listen();
    return rig;
  }

  async end(): Promise<void> {
    await this.glue?.close();
    await this.qemu.vanish();
    rmSync(this.folder, { recursive: true });
  }

  async attach(options: Partial<GlueOptions> = {}): Promise<QemuGlue> {
    this.glue = await QemuGlue.start({
      qmpPath: this.qemu.path,
      socketPaths: [PF],
      log: LOG,
      onTiming: (timing) => this.timings.push(timing),
      connectBackend: async () => this.backend,
      ...options,
    });
    this.qemu.commands.length = 0;
    return this.glue;
  }

  /** Attaches to a second backend as well, whose PF sits on the root bus; gives that one. */
  async attachToTwo(): Promise<FakeBackend> {
    const other = new FakeBackend();
    this.qemu.functions.push(
      { id: 'sriov-pf1', bus: 0, devfn: 0x80, socketPath: PF2 },
      { id: 'sriov-pf1-vf0', bus: 0, devfn: 0x81, socketPath: '/run/other/vf0.sock' },
    );
    await this.attach({
      socketPaths: [PF, PF2],
      connectBackend: async (path) => (path === PF ? this.backend : other),
    });
    return other;
  }

  /** One enable from begin to end, as a backend does it; gives the answers. */
  async enable(numVfs: number, options: Parameters<FakeBackend['plug']>[1] = {}) {
    const told = this.timings.length;
    const answers = [await this.backend.begin(numVfs)];
    for (let vfIndex = 0; vfIndex < numVfs; vfIndex++) {
      answers.push(await this.backend.plug(vfIndex, options));
    }
    this.backend.end();
    // After a reconnect the glue looks around at the same time.
    const { commands } = this.qemu;
    await vi.waitFor(
      () => expect(commands.lastIndexOf('cont')).toBeGreaterThan(commands.lastIndexOf('stop')),
      SOON,
    );
    await vi.waitFor(() => expect(this.qemu.isRunning).toBe(true), SOON);
    // Told when the guest runs on.
    await vi.waitFor(() => expect(this.timings.length).toBeGreaterThan(told), SOON);
    return answers;
  }

  async guestIsPaused(): Promise<void> {
    await vi.waitFor(() => expect(this.qemu.isRunning).toBe(false), SOON);
  }

  async guestRuns(): Promise<void> {
    await vi.waitFor(() => expect(this.qemu.isRunning).toBe(true), SOON);
  }

  /** Waits until slots were placed, and the guest has its 0xCF8 port as before. */
  async portGivenBack(): Promise<void> {
    await vi.waitFor(() => {
      expect(this.qemu.portCommands().length).toBeGreaterThan(1);
      expect(this.qemu.configAddress).toBe(0x8001_0004);
    }, SOON);
  }
}
