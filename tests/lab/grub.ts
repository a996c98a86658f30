// Disks that GRUB boots a guest from. By the BIOS: Debian's GRUB in the first sectors of one, and a folder of files that QEMU
// shows as a FAT disk; by EFI: GRUB is a program in that folder.
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { LabError } from './lab-error.ts';
import { type LabPart, partFolder } from './parts.ts';
import { relocatePrograms } from './relocated-programs.ts';
import { runProgram } from './run-program.ts';

interface Platform {
  /** As GRUB calls it. */
  readonly name: string;
  readonly part: LabPart;
  readonly modules: readonly string[];
  /** What GRUB calls the partition with the files. */
  readonly root: string;
}

const MODULES = ['part_msdos', 'fat', 'normal', 'linux'];
const BIOS: Platform = {
  name: 'i386-pc',
  part: grubPart('grub-1', 'grub-pc-bin'),
  modules: ['biosdisk', ...MODULES],
  root: '(hd1,msdos1)',
};
const EFI: Platform = {
  name: 'x86_64-efi',
  part: grubPart('grub-efi-1', 'grub-efi-amd64-bin'),
  modules: MODULES,
  root: '(hd0,msdos1)',
};
/** What firmware starts of a disk that it knows nothing of. */
const REMOVABLE_MEDIA_PATH = 'EFI/BOOT/BOOTX64.EFI';

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
  const core = join(files.folder, 'core.img');
  const prefix = await writeGrub(BIOS, files, core);
  const disk = join(files.folder, 'grub.img');
  // The boot sector, and behind it GRUB, where that sector looks for it.
  const bootSector = await readFile(join(prefix, 'boot.img'));
  await writeFile(disk, Buffer.concat([bootSector, await readFile(core)], DISK_BYTES));
  return [...driveArguments(0, disk), ...driveArguments(1, `fat:${await copyFiles(files)}`)];
}

/** QEMU arguments of a guest whose EFI firmware finds GRUB, and GRUB the kernel, on one disk. Throws LabError. */
export async function grubEfiArguments(files: BootFiles): Promise<string[]> {
  const folder = await copyFiles(files);
  const program = join(folder, REMOVABLE_MEDIA_PATH);
  await mkdir(dirname(program), { recursive: true });
  await writeGrub(EFI, files, program);
  return driveArguments(0, `fat:${folder}`);
}

function driveArguments(index: number, file: string): string[] {
  return ['-drive', `if=virtio,index=${index},format=raw,snapshot=on,file=${file}`];
}

/** What GRUB loads, in a folder of their own. */
async function copyFiles({ kernel, initrd, folder }: BootFiles): Promise<string> {
  const files = join(folder, 'grub-files');
  await mkdir(files);
  await copyFile(kernel, join(files, 'vmlinuz'));
  await copyFile(initrd, join(files, 'initrd'));
  return files;
}

/** Writes GRUB with the modules and the commands that it needs; gives the folder of Debian's modules. */
async function writeGrub(
  { name, part, modules, root }: Platform,
  { folder, commandLine }: BootFiles,
  output: string,
): Promise<string> {
  const prefix = await partFolder(part);
  const moduleFolder = join(prefix, 'usr/lib/grub', name);
  const config = join(folder, 'grub.cfg');
  await writeFile(config, `root=${root}\nlinux /vmlinuz ${commandLine}\ninitrd /initrd\nboot\n`);
  const result = await runProgram(join(prefix, 'usr/bin/grub-mkimage'), [
    ...[`--directory=${moduleFolder}`, `--format=${name}`, '--prefix=/', `--config=${config}`],
    ...[`--output=${output}`, ...modules],
  ]);
  if (result.status !== 0) {
    throw new LabError('grub-mkimage', result.stderr, 'remove the cache of the lab and try again');
  }
  return moduleFolder;
}

function grubPart(name: string, debianPackage: string): LabPart {
  return {
    name,
    what: 'GRUB',
    build: async (archive, target) => {
      await archive.unpackWithDependencies([debianPackage], target);
      await relocatePrograms(target, ['usr/bin']);
    },
  };
}
