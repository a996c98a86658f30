// NVMe as a kind of device: `--device=nvme`. Opens what the namespaces are kept in.

import { createHash, randomBytes } from 'node:crypto';
import { closeSync, fstatSync, openSync } from 'node:fs';
import { createMemfd } from '../../../protocol/unix/memory.ts';
import { UserError } from '../../../protocol/user-error.ts';
import type { DeviceKind } from '../kind.ts';
import { clothesFrom } from '../kit/clothes.ts';
import { describeDevice } from '../kit/describe.ts';
import { openRamFunction, RamDevice, type RamHandle } from '../kit/ram-device.ts';
import { declareNvme, type Extent, type NvmeOptions } from './device.ts';
import { BLOCK_BYTES } from './storage.ts';

const TOTAL_VFS = 7;
const NAMESPACE_BYTES = 64 * 2 ** 20;
const SPLIT = ',split';

interface Options {
  readonly totalVfs?: number;
  readonly namespace?: string;
  readonly namespaceSize?: number;
  readonly nvmeVfs?: 'online' | 'offline';
  readonly serial?: string;
  readonly profile?: string;
}

export const nvmeKind: DeviceKind = {
  async open(options: Options) {
    const clothes =
      options.profile === undefined ? undefined : clothesFrom(options.profile, options.totalVfs);
    const totalVfs = clothes?.card.totalVfs ?? options.totalVfs ?? TOTAL_VFS;
    const serialNumber = options.serial ?? randomBytes(8).toString('hex').toUpperCase();
    const namespaces = openNamespaces(options, totalVfs);
    const settled: NvmeOptions = {
      totalVfs,
      vfs: options.nvmeVfs ?? 'online',
      serialNumber,
      uuid: new Uint8Array(createHash('sha256').update(serialNumber).digest().subarray(0, 16)),
      namespaces,
      clothes,
    };
    return new RamDevice(describeDevice(declareNvme(settled)), settled, () =>
      closeNamespaces(namespaces),
    );
  },
  openFunction: (handle, context) =>
    openRamFunction(
      handle as RamHandle<NvmeOptions>,
      (options) => declareNvme(options, context.faults),
      context,
    ),
};

/** The PF's first, then each VF's. @throws UserError */
function openNamespaces({ namespace, namespaceSize }: Options, totalVfs: number): Extent[] {
  const bytes = namespaceSize ?? NAMESPACE_BYTES;
  const inRam = (count: number): Extent[] =>
    Array.from({ length: count }, (_, index) => ({
      fd: createMemfd(`nvme-namespace${index}`, bytes),
      start: 0,
      bytes,
    }));
  if (namespace === undefined) {
    return inRam(1 + totalVfs);
  }
  const isSplit = namespace.endsWith(SPLIT);
  const path = isSplit ? namespace.slice(0, -SPLIT.length) : namespace;
  const parts = isSplit ? 1 + totalVfs : 1;
  const { fd, size } = openFile(path);
  const part = Math.floor(size / parts / BLOCK_BYTES) * BLOCK_BYTES;
  if (part < BLOCK_BYTES) {
    closeSync(fd);
    throw new UserError(
      `--namespace=${namespace}: ${size} bytes are less than ${parts} blocks of ${BLOCK_BYTES} bytes`,
      `make the file as large as the disk is to be: truncate -s 64M ${path}`,
    );
  }
  const inFile = Array.from({ length: parts }, (_, index) => ({
    fd,
    start: index * part,
    bytes: part,
  }));
  return isSplit ? inFile : [...inFile, ...inRam(totalVfs)];
}

function openFile(path: string): { fd: number; size: number } {
  let fd: number;
  try {
    fd = openSync(path, 'r+');
  } catch (error) {
    throw new UserError(
      `--namespace=${path}: ${(error as Error).message}`,
      'name a file that exists and that you may read and write: truncate -s 64M FILE makes one',
    );
  }
  const status = fstatSync(fd);
  if (!status.isFile()) {
    closeSync(fd);
    throw new UserError(`--namespace=${path}: it is not a regular file`, 'name a regular file');
  }
  return { fd, size: status.size };
}

function closeNamespaces(namespaces: readonly Extent[]): void {
  for (const fd of new Set(namespaces.map((each) => each.fd))) {
    closeSync(fd);
  }
}
