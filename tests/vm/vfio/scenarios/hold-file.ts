// A stand-in for a VMM that does not let go: holds the VFIO device that it inherits as fd 3, as a file (`fd`) or only by
// a mapping of its BAR 0 (`map`), until it is killed.

import { MAP_SHARED, PROT_READ } from '../../../../protocol/unix/kernel-numbers.ts';
import { closeFd, mmap } from '../../../../protocol/unix/libc.ts';

if (process.argv[2] === 'map') {
  mmap(0n, 0x1000, PROT_READ, MAP_SHARED, 3, 0);
  closeFd(3);
}
console.log('holding');
setInterval(() => {}, 1_000);
