// Builds the C program that times reads of a PCI function's memory (guest/register-read.c), for a guest's initramfs.
import { join } from 'node:path';
import { compile } from './compiler.ts';
import type { GuestFile } from './initramfs.ts';
import { projectFolder } from './rootfs.ts';

const NAME = 'register-read';

/** Builds it into `folder`; gives the guest's /bin/register-read. */
export async function registerReader(folder: string): Promise<GuestFile> {
  const output = join(folder, NAME);
  await compile(join(await projectFolder(), `tests/lab/guest/${NAME}.c`), output);
  return { path: `/bin/${NAME}`, source: output };
}
