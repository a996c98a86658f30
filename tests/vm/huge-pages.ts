// Huge pages of the machine that the tests run on, for a guest's RAM.
import { readFileSync, writeFileSync } from 'node:fs';

const POOL = '/sys/kernel/mm/hugepages/hugepages-2048kB';
const PAGE_MEGABYTES = 2;

/** Has the kernel keep pages of 2 MiB for so much memory; gives what takes them back. Throws where it has not enough in one piece. */
export function keepHugePages(megabytes: number): () => void {
  const read = (name: string): number => Number(readFileSync(`${POOL}/${name}`, 'utf8'));
  const write = (pages: number): void => writeFileSync(`${POOL}/nr_hugepages`, String(pages));
  const before = read('nr_hugepages');
  const needed = megabytes / PAGE_MEGABYTES;
  const free = read('free_hugepages') - read('resv_hugepages');
  write(before + Math.max(0, needed - free));
  if (read('free_hugepages') - read('resv_hugepages') < needed) {
    write(before);
    throw new Error(
      `${needed} pages of 2 MiB: the kernel has not so many; free memory, or restart`,
    );
  }
  return () => write(before);
}
