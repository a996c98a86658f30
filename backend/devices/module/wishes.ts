// What the command line wants of a card that its file declares otherwise.

import { type Clothes, dressed } from '../kit/clothes.ts';
import type { DeviceDeclaration } from '../kit/declaration.ts';

/** Can be sent to another thread. */
export interface Wishes {
  readonly totalVfs: number | undefined;
  /** The card that it is to look like. */
  readonly clothes: Clothes | undefined;
}

/** @throws UserError where it cannot look like that */
export function asWished<Shared>(
  declaration: DeviceDeclaration<Shared>,
  { totalVfs = declaration.totalVfs, clothes }: Wishes,
): DeviceDeclaration<Shared> {
  return dressed({ ...declaration, totalVfs }, clothes);
}
