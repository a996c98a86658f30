// Programs unpacked from packages of Debian's run where they lie, on whatever Debian this machine has: each is started
// through the loader and the libraries that were unpacked with it. Neither root nor a namespace is needed for it.
import { open, readdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * Stands in a program's place, the program beside it: finds itself, so that the folder can be renamed. A program that
 * starts others by what it is called (gcc and its parts) finds their starters.
 */
const STARTER = `#!/bin/sh
self=$(readlink -f "$0")
root=\${self%/usr/*}
exec "$root/usr/lib64/ld-linux-x86-64.so.2" --argv0 "$0" \\
  --library-path "$root/usr/lib/x86_64-linux-gnu" "$self.elf" "$@"
`;

/** Puts a starter in the place of each dynamic program in `folders`, paths below `prefix`, and in the folders in them. */
export async function relocatePrograms(prefix: string, folders: readonly string[]): Promise<void> {
  for (const folder of folders) {
    const entries = await readdir(join(prefix, folder), { recursive: true, withFileTypes: true });
    for (const entry of entries.filter((it) => it.isFile())) {
      const path = join(entry.parentPath, entry.name);
      if (await isDynamicProgram(path)) {
        await rename(path, `${path}.elf`);
        await writeFile(path, STARTER, { mode: 0o755 });
      }
    }
  }
}

const PROGRAM_INTERPRETER = 3;

/** Whether a file names a loader ("ELF-64 Object File Format", program headers): an object or a library names none. */
async function isDynamicProgram(path: string): Promise<boolean> {
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(4096), 0, 4096, 0);
    if (bytesRead < 0x40 || buffer.toString('latin1', 0, 5) !== '\x7fELF\x02') {
      return false;
    }
    const [first, size, count] = [0x20, 0x36, 0x38].map((offset) => buffer.readUInt16LE(offset));
    return Array.from({ length: count! }, (_, index) => first! + index * size!).some(
      (at) => at + 4 <= bytesRead && buffer.readUInt32LE(at) === PROGRAM_INTERPRETER,
    );
  } finally {
    await file.close();
  }
}
