// How many open files a launcher asks for, and what it says where there may not be so many.
import { expect, it } from 'vitest';
import { checkOpenFiles, openFilesFor, openFilesLimit } from '../../../vmm-glue/qemu/open-files.ts';

const limits = (hard: string): string =>
  `Limit                     Soft Limit           Hard Limit           Units\n` +
  `Max open files            1024                 ${hard}                 files\n`;

it('reads the hard limit', () => {
  expect(openFilesLimit(limits('4096'))).toBe(4096);
  expect(openFilesLimit(limits('unlimited'))).toBe(Number.POSITIVE_INFINITY);
});

it('takes as many VFs as the limit allows, and names the need beyond', () => {
  const need = openFilesFor(100);
  expect(() => checkOpenFiles(100, limits(String(need)))).not.toThrow();
  expect(() => checkOpenFiles(100, limits(String(need - 1)))).toThrow(
    `100 VFs need up to ${need} open files, and this user may have ${need - 1}; raise the hard limit`,
  );
});
