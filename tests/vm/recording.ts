// A recording of a guest that is booted anyway, and what `trace` makes of it.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
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

  /** VFs, of which there must be none before, are enabled and disabled behind the kernel's back, by one who does not wait. */
  async expectImpatienceFound(guest: SriovGuest): Promise<void> {
    const sriov = await guest.extendedCapability(SRIOV_ID);
    await guest.writeConfig(guest.pf, sriov + Sriov.numVfs, 2, 1);
    const control = `pci-function config ${guest.pf} ${sriov + Sriov.control} 2`;
    await guest.vm.check(
      `${control} ${VF_ENABLE_AND_MEMORY}; ${control} 0; pci-function config ${guest.pf} ${sriov + Sriov.numVfs} 2`,
    );
    expect(this.trace('--explain')).toContain('disable without the 1 s wait');
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
