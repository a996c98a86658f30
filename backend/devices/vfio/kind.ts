// A physical function of this host as a kind of device: `--pf=ADDRESS`.
import type { DeviceKind } from '../kind.ts';
import type { ContainerMode } from './dma/dma-director.ts';
import { VfioFunction, type VfioHandle } from './vfio/function.ts';
import { linuxCalls } from './vfio/kernel-calls.ts';

interface Options {
  readonly pf: string;
  readonly totalVfs?: number;
  readonly container?: ContainerMode;
  readonly profile?: string;
  readonly maxGuestMemory?: number;
  readonly privileged?: string;
}

export const vfioKind: DeviceKind = {
  async open(options, { log, clock }) {
    const {
      pf,
      totalVfs,
      container = 'shared',
      profile,
      maxGuestMemory,
      privileged,
    } = options as unknown as Options;
    const { openVfioDevice } = await import('./open-vfio-device.ts');
    const opening = {
      pf,
      container,
      ...(profile === undefined ? {} : { profile }),
      ...(maxGuestMemory === undefined ? {} : { mostGuestMemory: maxGuestMemory }),
      ...(privileged === undefined ? {} : { privileged }),
      ...(totalVfs === undefined ? {} : { mostVfs: totalVfs }),
      log,
    };
    return openVfioDevice(opening, clock);
  },
  openFunction: (handle, { host }) => new VfioFunction(linuxCalls(), handle as VfioHandle, host),
};
