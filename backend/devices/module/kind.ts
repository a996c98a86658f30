// A card of one's own as a kind of device: `--device=./my-card.ts`.

import type { DeviceKind } from '../kind.ts';
import { describeDevice } from '../kit/describe.ts';
import { openRamFunction, RamDevice, type RamHandle } from '../kit/ram-device.ts';
import { loadDeclaration } from './load-module.ts';

interface Options {
  readonly totalVfs?: number;
}

/** `file` is loaded on each thread that asks. @throws UserError */
export async function moduleKind(file: string): Promise<DeviceKind> {
  const declaration = await loadDeclaration(file);
  const declare = ({ totalVfs = declaration.totalVfs }: Options) => ({ ...declaration, totalVfs });
  return {
    mayLoop: true,
    async open({ totalVfs }: Options) {
      const options = totalVfs === undefined ? {} : { totalVfs };
      return new RamDevice(describeDevice(declare(options)), options);
    },
    openFunction: (handle, context) =>
      openRamFunction(handle as RamHandle<Options>, declare, context),
  };
}
