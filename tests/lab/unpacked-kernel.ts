// A kernel without the code that unpacks it at each boot, which takes seconds where the processor is emulated, and more where
// its guest's is: QEMU starts an ELF file at its PVH entry.
import { readFile, writeFile } from 'node:fs/promises';
import { LabError } from './lab-error.ts';
import { ensureMachinePackages } from './machine.ts';
import { runProgram } from './run-program.ts';

/** Of a bzImage's header (Linux's "The Linux/x86 Boot Protocol"). */
const SETUP_SECTORS = 0x1f1;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const SECTOR = 512;
/** Behind what is compressed stands how long it will be, in four bytes. */
const LENGTH_BYTES = 4;
const ZSTD = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
/** The head of the ELF note XEN_ELFNOTE_PHYS32_ENTRY with an address of eight bytes, as x86_64 has it. */
const PVH_NOTE = Buffer.from([4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0, ...Buffer.from('Xen\0')]);

/** Writes what QEMU's `-kernel` takes: the bzImage `kernel` unpacked, if it is as Debian's are, or as it is. Throws LabError. */
export async function writeUnpackedKernel(kernel: string, file: string): Promise<void> {
  const image = await readFile(kernel);
  await writeFile(file, (await unpacked(image)) ?? image);
}

async function unpacked(image: Buffer): Promise<Buffer | undefined> {
  const start = (image.readUInt8(SETUP_SECTORS) + 1) * SECTOR + image.readUInt32LE(PAYLOAD_OFFSET);
  const end = start + image.readUInt32LE(PAYLOAD_LENGTH) - LENGTH_BYTES;
  const payload = image.subarray(start, end);
  if (!payload.subarray(0, ZSTD.length).equals(ZSTD)) {
    return undefined;
  }
  await ensureMachinePackages(['zstd']);
  const { status, stdout, stderr } = await runProgram('zstd', ['-dcq'], { input: payload });
  if (status !== 0) {
    throw new LabError('the guest kernel', stderr.trim(), 'fetch it again: npm run lab');
  }
  return stdout.includes(PVH_NOTE) ? stdout : undefined;
}
