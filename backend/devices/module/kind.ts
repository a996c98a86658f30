// A card of one's own as a kind of device: `--device=./my-card.ts`.

import type { DeviceKind } from '../kind.ts';
import { type Clothes, clothesFrom, dressed } from '../kit/clothes.ts';
import { describeDevice } from '../kit/describe.ts';
import { openRamFunction, RamDevice, type RamHandle } from '../kit/ram-device.ts';
import { loadDeclaration, thrown } from './load-module.ts';

interface Options {
  readonly totalVfs: number;
  readonly clothes?: Clothes | undefined;
}

/** `file` is loaded on each thread that asks. @throws UserError */
export async function moduleKind(file: string): Promise<DeviceKind> {
  const declaration = await loadDeclaration(file);
  const declare = ({ totalVfs, clothes }: Options) =>
    dressed({ ...declaration, totalVfs }, clothes);
  return {
    mayLoop: true,
    async open(
      { totalVfs, profile }: { readonly totalVfs?: number; readonly profile?: string },
      { clock },
    ) {
      const clothes = clothesFrom(profile, totalVfs);
      const options = { totalVfs: totalVfs ?? declaration.totalVfs, clothes };
      return new RamDevice(describeDevice(declare(options)), options, clock);
    },
    openFunction(handle, context) {
      try {
        return openRamFunction(handle as RamHandle<Options>, declare, context);
      } catch (error) {
        throw thrown(
          file,
          `when ${handle.index < 0 ? 'the PF' : `VF ${handle.index}`} is made`,
          error,
        );
      }
    },
  };
}
