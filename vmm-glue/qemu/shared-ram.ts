// Whether the guest's RAM is all shared with the devices' backends: from what is private to QEMU no DMA comes, in silence.
import type { Log } from '../../protocol/log.ts';
import { memoryBackends } from './answers.ts';
import type { Asker } from './devices.ts';

export class SharedRam {
  readonly #qemu: Asker;
  readonly #log: Log;
  /** What has been complained of. */
  readonly #known = new Set<string>();

  constructor(qemu: Asker, log: Log) {
    this.#qemu = qemu;
    this.#log = log;
  }

  /** Logs each backend of private memory once. Never rejects: a QEMU that does not tell is left alone. */
  async check(): Promise<void> {
    try {
      for (const { id, size, share } of await this.#qemu.ask('query-memdev', memoryBackends)) {
        if (!share) {
          this.#complain(id ?? 'without an id', size);
        }
      }
    } catch (error) {
      this.#log.debug(`whether RAM is shared is not known: ${(error as Error).message}`);
    }
  }

  #complain(id: string, size: number): void {
    if (this.#known.has(id)) {
      return;
    }
    this.#known.add(id);
    this.#log.error(
      `guest RAM ${id} (${size / 2 ** 20} MiB) is private to QEMU: DMA to it is lost; ` +
        `add share=on to its -object, and make it a memory-backend-memfd if it is a memory-backend-ram`,
      { memdev: id },
    );
  }
}
