// The loopback as a kind of device: `--device=loopback`, or `--loopback` for short; with `--profile` in a real card's clothes.

import { UserError } from '../../../protocol/user-error.ts';
import { type FunctionShape, PF_INDEX } from '../../device/physical-device.ts';
import { describeCard, readProfile } from '../device-profile.ts';
import type { DeviceKind } from '../kind.ts';
import { describeDevice } from '../kit/describe.ts';
import { OpenDevices } from '../kit/open-devices.ts';
import { openRamFunction, RamDevice, type RamHandle } from '../kit/ram-device.ts';
import { declareLoopback, type LoopbackOptions } from './device.ts';
import { SMALLEST_VF_BAR } from './options.ts';
import { planWorn, WornFunction, type WornPlan } from './worn-card.ts';

const TOTAL_VFS = 7;

interface Options {
  readonly totalVfs?: number;
  readonly vfBarSize?: number;
  readonly enableDelay?: number;
  readonly profile?: string;
}

/** The functions' shapes, where the device wears a profile. */
interface Clothes {
  readonly pf: FunctionShape;
  readonly vf: FunctionShape;
}

type Handle = RamHandle<LoopbackOptions | Clothes>;

const openCards = new OpenDevices<{ readonly pf: WornPlan; readonly vf: WornPlan }>();

export const loopbackKind: DeviceKind = {
  async open({ totalVfs, vfBarSize, enableDelay, profile }: Options, { clock }) {
    const enableMilliseconds = enableDelay ?? 0;
    if (profile !== undefined) {
      if (vfBarSize !== undefined) {
        const fix = 'leave one of them out';
        throw new UserError('--vf-bar-size and --profile both say how large VF BARs are', fix, 2);
      }
      const description = describeCard(readProfile(profile), profile, {
        mostVfs: totalVfs,
        enableMilliseconds,
      });
      return new RamDevice<Clothes>(description, { pf: description.pf, vf: description.vf }, clock);
    }
    const options = {
      totalVfs: totalVfs ?? TOTAL_VFS,
      vfBarSize: vfBarSize ?? SMALLEST_VF_BAR,
      enableMilliseconds,
    };
    return new RamDevice(describeDevice(declareLoopback(options)), options, clock);
  },
  openFunction(handle, context) {
    const { index, device, options } = handle as Handle;
    if (!('pf' in options)) {
      return openRamFunction(handle as RamHandle<LoopbackOptions>, declareLoopback, context);
    }
    const { pf, vf } = options;
    const plans = openCards.enter(device, () => ({
      pf: planWorn(pf, 'pf'),
      vf: planWorn(vf, 'vf'),
    }));
    const closed = (): void => void openCards.leave(device);
    return index === PF_INDEX
      ? new WornFunction('pf', plans.pf, closed)
      : new WornFunction(`vf${index}`, plans.vf, closed);
  },
};
