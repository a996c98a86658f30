// What Linux's sysfs says about PCI functions, typed. Reads of small attributes only: `sriov_numvfs` is left out, because
// reading it blocks while somebody disables VFs (numvfs-writer.ts does that). `root` is `/sys`, or a test's made-up tree.

import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { attempt } from './attempt.ts';

/** IORESOURCE_* flags; linux/ioport.h. */
export const ResourceFlag = { memory: 0x200, prefetchable: 0x2000, memory64: 0x10_0000 } as const;

/** Which lines of `resource` (from 0) hold the VF BARs, the last one excluded; linux/pci.h, PCI_IOV_RESOURCES. */
export const VF_BAR_LINES = [7, 13] as const;

/** One line of a function's `resource` file: an address range of the host, inclusive, and IORESOURCE_* flags. */
export interface ResourceLine {
  readonly start: bigint;
  readonly end: bigint;
  readonly flags: number;
}

/** The sysfs folder of one PCI function. */
export class PciFunctionFolder {
  readonly bdf: string;
  readonly path: string;
  readonly #root: string;

  constructor(root: string, bdf: string) {
    this.#root = root;
    this.bdf = bdf;
    this.path = `${root}/bus/pci/devices/${bdf}`;
  }

  exists(): boolean {
    return attempt(() => readdirSync(this.path)) !== undefined;
  }

  /** Path of an attribute, for a writer or an error. */
  attributePath(name: string): string {
    return `${this.path}/${name}`;
  }

  /** The trimmed text of an attribute, or undefined where there is none. */
  attribute(name: string): string | undefined {
    return attempt(() => readFileSync(this.attributePath(name), 'utf8').trim());
  }

  /** An attribute as a number (decimal or 0x), or undefined. */
  numberOf(name: string): number | undefined {
    const text = this.attribute(name);
    return text === undefined || text === '' ? undefined : Number(text);
  }

  /** The last part of what a link points at: a driver, a group, another function; undefined where there is none. */
  link(name: string): string | undefined {
    return attempt(() => basename(readlinkSync(this.attributePath(name))));
  }

  get driver(): string | undefined {
    return this.link('driver');
  }

  get iommuGroup(): string | undefined {
    return this.link('iommu_group');
  }

  /** The PF of a VF. */
  get physicalFunction(): string | undefined {
    return this.link('physfn');
  }

  /** `driver_override`; undefined where none is set. */
  get driverOverride(): string | undefined {
    const text = this.attribute('driver_override');
    return text === undefined || text === '' || text === '(null)' ? undefined : text;
  }

  get isBridge(): boolean {
    return (this.attribute('class') ?? '').startsWith('0x0604');
  }

  /** Whether VFs are enabled. */
  get hasVirtualFunctions(): boolean {
    return this.link('virtfn0') !== undefined;
  }

  /** BDFs of the VFs that are enabled, by VF index. */
  virtualFunctions(): string[] {
    const names = attempt(() => readdirSync(this.path)) ?? [];
    const vfs: string[] = [];
    for (const name of names) {
      const match = /^virtfn(\d+)$/.exec(name);
      const target = match ? this.link(name) : undefined;
      if (match && target !== undefined) {
        vfs[Number(match[1])] = target;
      }
    }
    return vfs;
  }

  /** The lines of `resource`: BARs 0..5, ROM, then the VF BARs of an SR-IOV PF. */
  resources(): ResourceLine[] {
    return (this.attribute('resource') ?? '')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => {
        const [start, end, flags] = line.split(' ');
        return { start: BigInt(start!), end: BigInt(end!), flags: Number(flags) };
      });
  }

  /** BDFs of the functions in this one's IOMMU group, itself included. */
  groupMembers(): string[] {
    return attempt(() => readdirSync(`${this.path}/iommu_group/devices`)) ?? [];
  }

  sibling(bdf: string): PciFunctionFolder {
    return new PciFunctionFolder(this.#root, bdf);
  }

  /** Has the bus look for a driver for this function. Rejects with the system's error. */
  probeDriver(): Promise<void> {
    return writeFile(`${this.#root}/bus/pci/drivers_probe`, this.bdf);
  }

  /** Takes this function from its driver. Rejects with the system's error. */
  async unbindDriver(): Promise<void> {
    if (this.driver !== undefined) {
      await this.write('driver/unbind', this.bdf);
    }
  }

  /** Writes an attribute off this thread. Rejects with the system's error. */
  write(name: string, value: string): Promise<void> {
    return writeFile(this.attributePath(name), value);
  }
}

/** A module parameter's text ("Y", "65535"), or undefined where the module is not loaded. */
export function moduleParameter(root: string, module: string, name: string): string | undefined {
  return attempt(() => readFileSync(`${root}/module/${module}/parameters/${name}`, 'utf8').trim());
}

/** Sets a module parameter. Throws the system's error. */
export function setModuleParameter(root: string, module: string, name: string, value: string) {
  writeFileSync(`${root}/module/${module}/parameters/${name}`, value);
}
