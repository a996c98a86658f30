// The test endpoint as a kind of device: `--device=endpoint-test`.

import type { DeviceKind } from '../kind.ts';
import { describeDevice } from '../kit/describe.ts';
import { openRamFunction, RamDevice, type RamHandle } from '../kit/ram-device.ts';
import { declareEndpointTest, type EndpointTestOptions } from './device.ts';

const TOTAL_VFS = 7;

export const endpointTestKind: DeviceKind = {
  async open({ totalVfs }: Partial<EndpointTestOptions>) {
    const options = { totalVfs: totalVfs ?? TOTAL_VFS };
    return new RamDevice(describeDevice(declareEndpointTest(options)), options);
  },
  openFunction: (handle, context) =>
    openRamFunction(handle as RamHandle<EndpointTestOptions>, declareEndpointTest, context),
};
