// Backend, QEMU and glue started one by one, with VFs mapped over their slots: for tests that kill one of the three.
import { readFileSync } from 'node:fs';
import { expect } from 'vitest';
import { BY_A_GUEST } from '../patience.ts';
import { type CliProcess, statusOf } from './cli-process.ts';
import { SeparateParts } from './separate-parts.ts';
import { Bar, type SriovGuest } from './sriov-guest.ts';

export const VFS = 3;

export class MappedParts {
  backend!: CliProcess;
  glue!: CliProcess;
  guest!: SriovGuest;
  readonly #parts: SeparateParts;
  readonly #serveOptions: readonly string[];

  /** `name` begins that of their folder. */
  constructor(name: string, serveOptions: readonly string[] = []) {
    this.#parts = new SeparateParts(name);
    this.#serveOptions = serveOptions;
  }

  async startBackend(): Promise<void> {
    this.backend = await this.#parts.startBackend(
      [`--total-vfs=${VFS}`, '--vf-bar-size=64K', ...this.#serveOptions],
      ['--vf-memory=mapped'],
    );
  }

  /** QEMU, its guest, and a glue. */
  async start(): Promise<void> {
    this.guest = await this.#parts.bootGuest();
    await this.attachGlue();
  }

  async attachGlue(): Promise<void> {
    this.glue = await this.#parts.attachGlue(this.backend);
  }

  async end(): Promise<void> {
    await this.guest?.end();
    await this.glue?.kill('SIGKILL');
    await this.backend?.kill('SIGKILL');
    this.#parts.remove();
  }

  /** Kills QEMU, and the glue, which is of no use then. */
  async killQemu(): Promise<void> {
    this.guest.vm.killGroup();
    await this.guest.end();
    await this.glue.kill('SIGKILL');
  }

  /** Kills the backend, waits until QEMU has nothing of its VFs any more, then ends QEMU and glue. */
  async killBackend(): Promise<void> {
    await this.backend.kill('SIGKILL');
    await expect.poll(() => (this.#hasAborted ? 0 : this.mappedInQemu), BY_A_GUEST).toBe(0);
    await this.guest.end();
    await this.glue.kill('SIGKILL');
  }

  /** How many VFs' memory QEMU has mapped, as the kernel tells. */
  get mappedInQemu(): number {
    const maps = readFileSync(`/proc/${this.guest.vm.pid}/maps`, 'utf8');
    return new Set(maps.match(/loopback-vf\d+/g)).size;
  }

  async waitForMapped(count: number): Promise<void> {
    await expect.poll(() => this.mappedInQemu, BY_A_GUEST).toBe(count);
  }

  async enableMapped(): Promise<void> {
    await this.guest.setNumVfs(VFS);
    await this.waitForMapped(VFS);
    await this.guest.expectVfContents(VFS);
    await this.guest.writeBar(this.guest.vf(1), Bar.memory, 0x99);
  }

  async phase(): Promise<string> {
    return (await statusOf(this.#parts.socketPath)).phase;
  }

  /** Has the guest write to sriov_numvfs, and waits for nothing of what follows. */
  async beginToWrite(numVfs: number): Promise<void> {
    const file = `${this.guest.sysfs}/sriov_numvfs`;
    await this.guest.vm.check(`(echo ${numVfs} > ${file}) < /dev/null > /dev/null 2>&1 &`);
  }

  /**
   * QEMU 11.1 was adding a carrier when its backend died: its error handling asserts that a device fails once, and this one
   * fails at each question.
   */
  get #hasAborted(): boolean {
    return /error_setv: Assertion/.test(this.guest.vm.processOutput);
  }
}
