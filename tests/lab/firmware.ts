// Firmware for guests in place of QEMU's own, or of none: Debian's builds of EDK II, OVMF and that for aarch64, fetched into the lab's cache.
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Processor } from './lab.ts';
import { type LabPart, partFolder } from './parts.ts';

const OVMF_PART: LabPart = {
  name: 'ovmf-1',
  what: 'OVMF',
  build: (archive, target) => archive.unpack('ovmf', target),
};
const AARCH64_PART: LabPart = {
  name: 'efi-aarch64-1',
  what: 'EFI firmware for aarch64',
  build: (archive, target) => archive.unpack('qemu-efi-aarch64', target),
};
const BUILDS = {
  x86_64: {
    part: OVMF_PART,
    folder: 'OVMF',
    code: 'OVMF_CODE_4M.fd',
    variables: 'OVMF_VARS_4M.fd',
  },
  aarch64: {
    part: AARCH64_PART,
    folder: 'AAVMF',
    code: 'AAVMF_CODE.fd',
    variables: 'AAVMF_VARS.fd',
  },
} as const;

/**
 * QEMU arguments of a guest that EFI firmware boots, which starts what `-kernel` names as an EFI program. `variablesFile`: where
 * its variables go, as they are before a machine's first boot. Throws LabError.
 */
export async function efiArguments(
  variablesFile: string,
  processor: Processor = 'x86_64',
): Promise<string[]> {
  const { part, folder, code, variables } = BUILDS[processor];
  const files = join(await partFolder(part), 'usr/share', folder);
  await copyFile(join(files, variables), variablesFile);
  const flash = 'if=pflash,format=raw';
  const readOnly = `${flash},unit=0,readonly=on,file=${join(files, code)}`;
  return ['-drive', readOnly, '-drive', `${flash},unit=1,file=${variablesFile}`];
}
