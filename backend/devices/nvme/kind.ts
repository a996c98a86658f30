// NVMe as a kind of device: `--device=nvme`. Opens what the namespaces are kept in.

import { createHash, randomBytes } from 'node:crypto';
import type { DeviceKind } from '../kind.ts';
import { clothesFrom } from '../kit/clothes.ts';
import { describeDevice } from '../kit/describe.ts';
import { openRamFunction, RamDevice, type RamHandle } from '../kit/ram-device.ts';
import { declareNvme, type NvmeOptions } from './device.ts';
import { NVME_FAULTS } from './fault-language.ts';
import { keptStorage, type NamespaceOptions, openNamespaces } from './namespaces.ts';

const TOTAL_VFS = 7;

interface Options extends NamespaceOptions {
  readonly totalVfs?: number;
  readonly nvmeVfs?: 'online' | 'offline';
  readonly serial?: string;
  readonly profile?: string;
}

export const nvmeKind: DeviceKind = {
  faults: NVME_FAULTS,
  async open(options: Options, { clock }) {
    const clothes = clothesFrom(options.profile, options.totalVfs);
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
    return new RamDevice(
      describeDevice(declareNvme(settled)),
      settled,
      clock,
      keptStorage(namespaces),
    );
  },
  openFunction: (handle, context) =>
    openRamFunction(
      handle as RamHandle<NvmeOptions>,
      (options) =>
        declareNvme(
          options,
          context.faults,
          (index, done) =>
            context.host.request('syncStorage', [index], (error) => done(error === undefined)),
          context.log,
        ),
      context,
    ),
};
