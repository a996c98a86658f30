// Kernel modules for guests that have no modprobe: finds modules by name, follows what they depend on, and gives
// their decompressed files in an order in which insmod takes them.
import { readdir, readFile } from 'node:fs/promises';
import { basename, join, relative } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { LabError } from './lab-error.ts';
import { runProgram } from './run-program.ts';

/** One loadable module; `name` has underscores, as in /proc/modules. */
export interface KernelModule {
  readonly name: string;
  readonly depends: readonly string[];
  /** The ELF object, decompressed. */
  readonly object: Buffer;
}

/** The modules of one kernel. */
export class ModuleTree {
  readonly #folder: string;
  readonly #busybox: string;
  readonly #paths: ReadonlyMap<string, string>;
  readonly #builtIn: ReadonlySet<string>;
  readonly #loaded = new Map<string, KernelModule>();

  private constructor(
    folder: string,
    busybox: string,
    paths: ReadonlyMap<string, string>,
    builtIn: ReadonlySet<string>,
  ) {
    this.#folder = folder;
    this.#busybox = busybox;
    this.#paths = paths;
    this.#builtIn = builtIn;
  }

  /** Indexes `folder`, a /lib/modules/VERSION; `busybox` is what decompresses. */
  static async open(folder: string, busybox: string): Promise<ModuleTree> {
    const entries = await readdir(join(folder, 'kernel'), { recursive: true });
    const paths = new Map<string, string>();
    for (const entry of entries) {
      if (/\.ko(\.\w+)?$/.test(entry)) {
        paths.set(nameOf(entry), join(folder, 'kernel', entry));
      }
    }
    const list = await readFile(join(folder, 'modules.builtin'), 'utf8').catch(() => '');
    return new ModuleTree(folder, busybox, paths, new Set(list.trim().split('\n').map(nameOf)));
  }

  /**
   * `name` and all that it depends on, each after what it needs itself; empty when it is built into the kernel. A name
   * that ends with `.ko` is a file that somebody built.
   */
  async closureOf(name: string): Promise<KernelModule[]> {
    const order: KernelModule[] = [];
    const seen = new Set<string>();
    const visit = async (each: string) => {
      const wanted = nameOf(each);
      if (seen.has(wanted) || this.#builtIn.has(wanted)) {
        return;
      }
      seen.add(wanted);
      const path = each.endsWith('.ko') ? each : this.#paths.get(wanted);
      const module = await this.#read(wanted, path);
      for (const needed of module.depends) {
        await visit(needed);
      }
      order.push(module);
    };
    await visit(name);
    return order;
  }

  /** Where each module's file is below the kernel's folder of modules, by name. */
  get files(): ReadonlyMap<string, string> {
    return new Map([...this.#paths].map(([name, path]) => [name, relative(this.#folder, path)]));
  }

  /** Modules that are part of the kernel. */
  get builtIn(): ReadonlySet<string> {
    return this.#builtIn;
  }

  async #read(name: string, path: string | undefined): Promise<KernelModule> {
    const known = this.#loaded.get(name);
    if (known !== undefined) {
      return known;
    }
    if (path === undefined) {
      throw new LabError(`module ${name}`, `not in ${this.#folder}`, 'use a kernel that has it');
    }
    const object = await this.#decompress(path);
    const depends = modinfoOf(object).get('depends') ?? '';
    const module = { name, depends: depends.split(',').filter((it) => it !== ''), object };
    this.#loaded.set(name, module);
    return module;
  }

  async #decompress(path: string): Promise<Buffer> {
    if (path.endsWith('.ko')) {
      return await readFile(path).catch((error: Error) => {
        throw new LabError(path, error.message, 'name a file that is there');
      });
    }
    if (path.endsWith('.gz')) {
      return gunzipSync(await readFile(path));
    }
    const command = path.endsWith('.xz') ? [this.#busybox, 'xzcat'] : ['zstd', '-dcq'];
    const [program, ...args] = command;
    const result = await runProgram(program!, [...args, path]).catch((error: Error) => {
      throw new LabError(path, error.message, `install ${program}`);
    });
    if (result.status !== 0) {
      throw new LabError(path, result.stderr, 'remove the cache of the lab and set it up again');
    }
    return result.stdout;
  }
}

/** The name by which the kernel knows a module file: `kernel/drivers/vfio/pci/vfio-pci.ko.xz` is `vfio_pci`. */
export function nameOf(path: string): string {
  return basename(path)
    .replace(/\.ko(\.\w+)?$/, '')
    .replaceAll('-', '_');
}

/** The `key=value` strings of a module's .modinfo section (little-endian ELF64, "ELF-64 Object File Format"). */
export function modinfoOf(object: Buffer): Map<string, string> {
  const sectionTable = Number(object.readBigUInt64LE(0x28));
  const entrySize = object.readUInt16LE(0x3a);
  const count = object.readUInt16LE(0x3c);
  const section = (index: number) => {
    const header = sectionTable + index * entrySize;
    const offset = Number(object.readBigUInt64LE(header + 0x18));
    const size = Number(object.readBigUInt64LE(header + 0x20));
    return { name: object.readUInt32LE(header), bytes: object.subarray(offset, offset + size) };
  };
  const names = section(object.readUInt16LE(0x3e)).bytes;
  const fields = new Map<string, string>();
  for (let index = 0; index < count; index += 1) {
    const { name, bytes } = section(index);
    if (names.toString('latin1', name, names.indexOf(0, name)) !== '.modinfo') {
      continue;
    }
    for (const line of bytes.toString('latin1').split('\0')) {
      const equals = line.indexOf('=');
      if (equals > 0) {
        fields.set(line.slice(0, equals), line.slice(equals + 1));
      }
    }
  }
  return fields;
}
