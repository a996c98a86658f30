// A card of one's own as a kind of device: `--device=./my-card.ts`. Its code runs on the device thread.

import { PF_INDEX } from '../../device/physical-device.ts';
import type { DeviceContext, DeviceKind } from '../kind.ts';
import { clothesFrom } from '../kit/clothes.ts';
import type { DeviceDeclaration } from '../kit/declaration.ts';
import { openRamFunction, RamDevice, type RamHandle } from '../kit/ram-device.ts';
import { examine } from './examine.ts';
import { loadDeclaration, thrown } from './load-module.ts';
import { sourceStack } from './source-stack.ts';
import { asWished, type Wishes } from './wishes.ts';

/** `examiner`: the program of examine.ts, where it is not as it is built. */
export function moduleKind(file: string, examiner?: URL): DeviceKind {
  let declaration: DeviceDeclaration<unknown> | undefined;
  return {
    mayLoop: true,
    sourceStack: (stack) => sourceStack(stack, file),
    async open(
      { totalVfs, profile }: { readonly totalVfs?: number; readonly profile?: string },
      { clock, ending }: DeviceContext,
    ) {
      const wishes = { totalVfs, clothes: clothesFrom(profile, totalVfs) };
      const description = await examine({ file, wishes }, { clock, ending, examiner });
      return new RamDevice<Wishes>(description, wishes, clock);
    },
    async load() {
      declaration = await loadDeclaration(file);
    },
    openFunction(handle, context) {
      const declare = (wishes: Wishes) => asWished(declaration!, wishes);
      try {
        return openRamFunction(handle as RamHandle<Wishes>, declare, context);
      } catch (error) {
        throw thrown(
          file,
          `when ${handle.index === PF_INDEX ? 'the PF' : `VF ${handle.index}`} is made`,
          error,
        );
      }
    },
  };
}
