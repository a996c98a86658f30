// Firmware for guests in place of QEMU's own SeaBIOS: Debian's OVMF, fetched into the lab's cache.
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type LabPart, partFolder } from './parts.ts';

const OVMF_PART: LabPart = {
  name: 'ovmf-1',
  what: 'OVMF',
  build: (archive, target) => archive.unpack('ovmf', target),
};
const FOLDER = 'usr/share/OVMF';

/**
 * QEMU arguments of a guest that OVMF boots, which starts what `-kernel` names as an EFI program. `variablesFile`: where
 * its variables go, as they are before a machine's first boot. Throws LabError.
 */
export async function ovmfArguments(variablesFile: string): Promise<string[]> {
  const folder = join(await partFolder(OVMF_PART), FOLDER);
  await copyFile(join(folder, 'OVMF_VARS_4M.fd'), variablesFile);
  const flash = 'if=pflash,format=raw';
  const code = `${flash},unit=0,readonly=on,file=${join(folder, 'OVMF_CODE_4M.fd')}`;
  return ['-drive', code, '-drive', `${flash},unit=1,file=${variablesFile}`];
}
