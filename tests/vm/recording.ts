// A recording of a guest that is booted anyway, and what `trace` makes of it.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { BY_A_GUEST } from '../patience.ts';
import { CLI, Sriov, type SriovGuest } from './sriov-guest.ts';

const SRIOV_ID = 0x10;
const VF_ENABLE_AND_MEMORY = 9;

export class Recording {
  readonly #folder = mkdtempSync(join(tmpdir(), 'trace-'));
  readonly #path = join(this.#folder, 'trace');
  /** For the launcher. */
  readonly options = [`--trace=${this.#path}`];

  trace(...args: string[]): string {
    const command = [CLI, 'trace', this.#path, ...args];
    const { stdout, stderr, status } = spawnSync(process.execPath, command, {
      encoding: 'utf8',
      maxBuffer: 1 << 28,
    });
    expect([status, stderr]).toEqual([0, '']);
    return stdout;
  }

  /** The guest's driver broke no rule, and whether it waited could be judged. */
  expectClean(): void {
    const lines = this.trace('--explain').trim().split('\n');
    expect(lines[0]).toBe('nothing that the standard forbids');
    expect(lines.filter((line) => /^not judged: (enable|disable)-wait/.test(line))).toEqual([]);
  }

  /** VFs, of which there must be none before, are disabled and enabled behind the kernel's back, by one who does not wait. */
  async expectImpatienceFound(guest: SriovGuest): Promise<void> {
    const sriov = await guest.extendedCapability(SRIOV_ID);
    // The kernel knows VF 0, and takes no part in what follows.
    await guest.setNumVfs(1);
    const at = sriov + Sriov.control;
    const control = await guest.readConfig(guest.pf, at, 2);
    const disabled = control & ~VF_ENABLE_AND_MEMORY;
    await guest.vm.check(
      `pci-function config ${guest.pf} ${at} 2 ${disabled} && sleep 1.1 && ` +
        `pci-function enable ${guest.pf} ${at} ${control} ${guest.vf(0)}`,
    );
    await this.#expectFound(
      /VF Enable without the 100 ms wait: VF 0 was accessed \d+\.\d ms of guest/,
    );
    await guest.vm.check(
      `pci-function config ${guest.pf} ${at} 2 ${disabled} && ` +
        `pci-function config ${guest.pf} ${sriov + Sriov.numVfs} 2 && sleep 1.1`,
    );
    await this.#expectFound(/disable without the 1 s wait: SR-IOV NumVFs was accessed/);
    await guest.setNumVfs(0);
  }

  /** The glue tells a moment later that it has let the guest run on: until then what came is not known to be the guest's. */
  async #expectFound(finding: RegExp): Promise<void> {
    await expect.poll(() => this.trace('--explain'), BY_A_GUEST).toMatch(finding);
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
