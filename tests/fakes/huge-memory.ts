// Guest memory in huge pages, where the machine has some to give: root's tests ask for a few.

import { readFileSync, writeFileSync } from 'node:fs';
import { closeFd } from '../../protocol/unix/libc.ts';
import { createMemfd, type Mapping, mapMemory, unmapMemory } from '../../protocol/unix/memory.ts';

const POOL = '/proc/sys/vm/nr_hugepages';
const PAGES = 4;

/** Bytes of one of them, 0 where this kernel has none. */
export const HUGE_PAGE = 1024 * kernelSays('Hugepagesize');

/** A memfd of four huge pages, which are there and stay there, as the guest sees it in `bytes`. */
export class HugeMemory {
  readonly fd: number;
  readonly bytes: Uint8Array;
  readonly #mapping: Mapping;
  readonly #poolBefore: string;

  /** Undefined where there are no such pages to be had. */
  static open(): HugeMemory | undefined {
    if (HUGE_PAGE === 0) {
      return undefined;
    }
    try {
      return new HugeMemory();
    } catch {
      return undefined;
    }
  }

  private constructor() {
    this.#poolBefore = readFileSync(POOL, 'utf8');
    if (kernelSays('HugePages_Free') - kernelSays('HugePages_Rsvd') < PAGES) {
      writeFileSync(POOL, String(kernelSays('HugePages_Total') + PAGES));
    }
    const length = PAGES * HUGE_PAGE;
    this.fd = createMemfd('huge-guest', length, { hugePages: true });
    try {
      this.#mapping = mapMemory({ fd: this.fd, offset: 0, length, write: true });
    } catch (error) {
      closeFd(this.fd);
      throw error;
    }
    this.bytes = this.#mapping.bytes;
    this.bytes.fill(0);
  }

  close(): void {
    unmapMemory(this.#mapping);
    closeFd(this.fd);
    if (readFileSync(POOL, 'utf8') !== this.#poolBefore) {
      writeFileSync(POOL, this.#poolBefore);
    }
  }
}

function kernelSays(name: string): number {
  const line = new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(readFileSync('/proc/meminfo', 'utf8'));
  return Number(line?.[1] ?? 0);
}
