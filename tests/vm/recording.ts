// A recording of a guest that is booted anyway, and what `trace` makes of it.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { CLI, type SriovGuest } from './sriov-guest.ts';

const SRIOV_ID = 0x10;
/** Milliseconds, of PCIe. */
const ENABLE_WAIT = 100;
const HASTE = /VF Enable without the 100 ms wait: VF \d+ was accessed [\d.]+ ms of guest time/;

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

  /**
   * A PF driver behind the kernel's back that waits as the standard wants, with one VF, breaks no rule; one that does not wait
   * is found, with `numVfs`, of which it looks at the last. There must be none before.
   */
  async expectHasteFound(guest: SriovGuest, numVfs = 1): Promise<void> {
    const sriov = await guest.extendedCapability(SRIOV_ID);
    const enable = (vfs: number, wait: number): Promise<string> =>
      guest.vm.check(`pci-function enable ${guest.pf} ${sriov} ${vfs} ${wait}`);
    const before = this.findings();
    await enable(1, ENABLE_WAIT);
    expect(this.findings()).toEqual(before);
    await enable(numVfs, 0);
    const found = this.findings().slice(before.length).join('\n');
    expect(found).toMatch(
      /disable without the 1 s wait: SR-IOV \w+ was accessed [\d.]+ ms of guest time/,
    );
    expect(found).toMatch(HASTE);
  }

  /** What drivers did against the standard so far, one line each, in order. */
  findings(): string[] {
    const lines = this.trace('--explain').split('\n');
    return lines.filter((line) => /^ *\d+\.\d{6} /.test(line));
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
