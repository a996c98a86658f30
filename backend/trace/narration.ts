// The observers that write the log: at info what a person wants to know of a device's life, one line each; at debug each
// write to config space, decoded.

import type { Log } from '../../protocol/log.ts';
import { RegionIndex } from '../../protocol/vfio-user/commands.ts';
import type { PartialObserver } from '../device/observer.ts';
import type { DeviceDescription } from '../device/physical-device.ts';
import { patchedImage } from '../pci/capability-chain.ts';
import { decodeAccess, describeRegister, SeenBytes } from '../pci/decode.ts';
import { configMap, type RegisterMap } from '../pci/register-map.ts';
import { PF_CAPABILITIES, VF_CAPABILITIES } from '../pci/spec/capability-ids.ts';

/** Enables, disables and resets. `now` gives milliseconds. */
export function narration(log: Log, now: () => number): PartialObserver {
  let numVfs = 0;
  let began = 0;
  return {
    step: (event, before, after) => {
      const { type, numVfs: wanted } = event as { type?: string; numVfs?: number };
      if (type === 'vfEnableSet') {
        numVfs = wanted ?? 0;
        began = now();
      }
      if (after === 'enabled' && before !== 'enabled') {
        log.info(`${counted(numVfs)} up, ${Math.round(now() - began)} ms after VF Enable`);
      } else if (after === 'disabled' && before !== 'disabled') {
        log.info('the VFs are gone');
      }
    },
    reset: (name, kind) => {
      if (kind === 'function') {
        log.info(`${name}: function level reset by the guest`);
      } else if (name === 'pf') {
        log.info('pf: reset by the VMM');
      } else {
        log.debug(`${name}: reset by the VMM`);
      }
    },
  };
}

function counted(count: number): string {
  return count === 1 ? '1 VF is' : `${count} VFs are`;
}

/** Each write to config space of PF and VFs. */
export function decodedWrites(log: Log, { pf, vf }: DeviceDescription): PartialObserver {
  const images = {
    pf: patchedImage(pf.config, PF_CAPABILITIES),
    vf: patchedImage(vf.config, VF_CAPABILITIES),
  };
  const maps: Readonly<Record<'pf' | 'vf', RegisterMap>> = {
    pf: configMap(images.pf, 'pf'),
    vf: configMap(images.vf, 'vf'),
  };
  const seen = new Map<string, SeenBytes>();
  const seenOf = (name: string, kind: 'pf' | 'vf'): SeenBytes => {
    const bytes = seen.get(name) ?? new SeenBytes(images[kind]);
    seen.set(name, bytes);
    return bytes;
  };
  return {
    access: (name, isWrite, region, offset, data) => {
      if (region !== RegionIndex.config) {
        return;
      }
      const kind = name === 'pf' ? 'pf' : 'vf';
      const access = { isWrite, offset, bytes: data };
      for (const register of decodeAccess(maps[kind], seenOf(name, kind), access)) {
        if (isWrite) {
          log.debug(`${name} W ${register.name} ${describeRegister(register, true)}`);
        }
      }
    },
    reset: (name) => {
      seen.delete(name);
    },
  };
}
