// A backend, a QEMU and a glue that are started one by one, as libvirt would.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { CliProcess } from './cli-process.ts';
import { SriovGuest } from './sriov-guest.ts';

/** Where they meet. */
export class SeparateParts {
  readonly #folder: string;
  readonly socketPath: string;
  readonly qmpPath: string;
  #deviceArguments: readonly string[] = [];

  /** `name` begins that of the folder. */
  constructor(name: string) {
    this.#folder = mkdtempSync(join(tmpdir(), `${name}-`));
    this.socketPath = join(this.#folder, 'pf.sock');
    this.qmpPath = join(this.#folder, 'qmp.sock');
  }

  /** With these options for `serve`, beside its sockets; a QEMU that is started later has what `qemu-args` says of it. */
  async startBackend(
    serveOptions: readonly string[],
    argumentOptions: readonly string[] = [],
  ): Promise<CliProcess> {
    const backend = new CliProcess(
      'serve',
      '--loopback',
      ...serveOptions,
      `--socket-path=${this.socketPath}`,
      `--vf-sockets=${join(this.#folder, 'vfs')}`,
    );
    const [ready] = await backend.waitFor(/^ready .*$/m);
    const qmp = `--qmp=${this.qmpPath}`;
    const printer = new CliProcess(
      'qemu-args',
      `--ready=${ready}`,
      qmp,
      ...argumentOptions,
      '--json',
    );
    expect(await printer.ended()).toBe(0);
    this.#deviceArguments = JSON.parse(printer.output) as string[];
    return backend;
  }

  /** With the PF bound to a driver that has no use for it but VFs. */
  async bootGuest(): Promise<SriovGuest> {
    const guest = await SriovGuest.boot({
      starter: (qemu) => ({ command: qemu, args: this.#deviceArguments }),
    });
    await guest.bindDriver('pci-pf-stub');
    return guest;
  }

  /** A glue, once the backend knows it. */
  async attachGlue(backend: CliProcess): Promise<CliProcess> {
    const from = backend.output.length;
    const glue = new CliProcess(
      'attach-qemu',
      `--qmp=${this.qmpPath}`,
      `--socket-path=${this.socketPath}`,
    );
    await backend.waitFor(/attached as glue/, from).catch((error: Error) => {
      throw new Error(`${error.message}\n--- the glue:\n${glue.output}`);
    });
    return glue;
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
