// A disk that GRUB boots a guest from, by the BIOS: Debian's GRUB in the first sectors, and beside it a folder of files that
// QEMU shows as a FAT disk.
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LabError } from './lab-error.ts';
import { type LabPart, partFolder } from './parts.ts';
import { relocatePrograms } from './relocated-programs.ts';
import { runProgram } from './run-program.ts';

const GRUB_PART: LabPart = {
  name: 'grub-1',
  what: 'GRUB',
  build: async (archive, target) => {
    await archive.unpackWithDependencies(['grub-pc-bin'], target);
    await relocatePrograms(target, ['usr/bin']);
  },
};
const PLATFORM = 'i386-pc';
const MODULES = ['biosdisk', 'part_msdos', 'fat', 'normal', 'linux'];

/** The BIOS reads the first sector by cylinder, of which a smaller disk has none. */
const DISK_BYTES = 1024 * 1024;

/** What is to be booted. */
export interface BootFiles {
  readonly kernel: string;
  readonly initrd: string;
  readonly commandLine: string;
  /** For what is made of them. */
  readonly folder: string;
}

/** QEMU arguments of a guest whose BIOS finds GRUB on the first disk, and GRUB the kernel on the second. Throws LabError. */
export async function grubArguments(files: BootFiles): Promise<string[]> {
  const loader = await writeLoader(files);
  const folder = join(files.folder, 'grub-files');
  await mkdir(folder);
  await copyFile(files.kernel, join(folder, 'vmlinuz'));
  await copyFile(files.initrd, join(folder, 'initrd'));
  return [
    ...['-drive', `if=virtio,index=0,format=raw,snapshot=on,file=${loader}`],
    ...['-drive', `if=virtio,index=1,format=raw,snapshot=on,file=fat:${folder}`],
  ];
}

/** The boot sector, and behind it GRUB with the modules and the commands that it needs: where GRUB looks for itself. */
async function writeLoader({ folder, commandLine }: BootFiles): Promise<string> {
  const prefix = await partFolder(GRUB_PART);
  const modules = join(prefix, 'usr/lib/grub', PLATFORM);
  const [config, core] = [join(folder, 'grub.cfg'), join(folder, 'core.img')];
  await writeFile(
    config,
    `root=(hd1,msdos1)\nlinux /vmlinuz ${commandLine}\ninitrd /initrd\nboot\n`,
  );
  const result = await runProgram(join(prefix, 'usr/bin/grub-mkimage'), [
    ...[`--directory=${modules}`, `--format=${PLATFORM}`, '--prefix=/', `--config=${config}`],
    ...[`--output=${core}`, ...MODULES],
  ]);
  if (result.status !== 0) {
    throw new LabError('grub-mkimage', result.stderr, 'remove the cache of the lab and try again');
  }
  const disk = join(folder, 'grub.img');
  const sectors = [await readFile(join(modules, 'boot.img')), await readFile(core)];
  await writeFile(disk, Buffer.concat(sectors, DISK_BYTES));
  return disk;
}
