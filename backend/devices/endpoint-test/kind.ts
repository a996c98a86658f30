// The test endpoint as a kind of device: `--device=endpoint-test`.

import type { DeviceKind } from '../kind.ts';
import { type Clothes, clothesFrom, dressed } from '../kit/clothes.ts';
import { describeDevice } from '../kit/describe.ts';
import { openRamFunction, RamDevice, type RamHandle } from '../kit/ram-device.ts';
import { declareEndpointTest, type EndpointTestOptions } from './device.ts';

const TOTAL_VFS = 7;

interface Options extends EndpointTestOptions {
  readonly clothes?: Clothes | undefined;
}

const declare = (options: Options) => dressed(declareEndpointTest(options), options.clothes);

export const endpointTestKind: DeviceKind = {
  async open(
    { totalVfs, profile }: { readonly totalVfs?: number; readonly profile?: string },
    { clock },
  ) {
    const clothes = clothesFrom(profile, totalVfs);
    const options = { totalVfs: clothes?.card.totalVfs ?? totalVfs ?? TOTAL_VFS, clothes };
    return new RamDevice(describeDevice(declare(options)), options, clock);
  },
  openFunction: (handle, context) =>
    openRamFunction(handle as RamHandle<Options>, declare, context),
};
