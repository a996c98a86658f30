// The observers that write the log: at info what a person wants to know of a device's life, one line each; at debug each
// write to config space, decoded.

import type { SriovPhase } from '../../protocol/hotplug/status.ts';
import type { Log } from '../../protocol/log.ts';
import { RegionIndex } from '../../protocol/vfio-user/commands.ts';
import type { PartialObserver } from '../device/observer.ts';
import type { DeviceDescription } from '../device/physical-device.ts';
import { patchedImage } from '../pci/capability-chain.ts';
import { decodeAccess, describeRegister, SeenBytes } from '../pci/decode.ts';
import { barMap, configMap, type RegisterMap } from '../pci/register-map.ts';
import { forgetVf, takesVfsAway } from '../pci/seen-vf.ts';
import { PF_CAPABILITIES, VF_CAPABILITIES } from '../pci/spec/capability-ids.ts';

/** Has something said when what is at hand is done. */
export type SayLater = (say: () => void) => void;

/** Enables, disables and resets. `now` gives milliseconds. That VFs are up is said `later`: a guest may stand still until all is done. */
export function narration(log: Log, now: () => number, later: SayLater): PartialObserver {
  let numVfs = 0;
  let began = 0;
  let sayUp = (): void => {};
  return {
    step: (event, before, after) => {
      const { type, numVfs: wanted } = event as { type?: string; numVfs?: number };
      if (type === 'vfEnableSet') {
        numVfs = wanted ?? 0;
        began = now();
      }
      if (after === 'enabled' && before !== 'enabled') {
        const line = `${counted(numVfs)} up, ${Math.round(now() - began)} ms after VF Enable`;
        sayUp = () => {
          sayUp = () => {};
          log.info(line);
        };
        later(() => sayUp());
      } else if (before === 'enabled' && after !== 'enabled') {
        // What comes next is not to be said before it.
        sayUp();
      } else if (after === 'disabled' && before !== 'disabled' && before !== 'creating') {
        // What could not be made has a line of its own, and was never there.
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

/** Each phase of the SR-IOV machine that is another than the one before. */
export function phaseChanges(changed: (phase: SriovPhase) => void): PartialObserver {
  return {
    step: (_event, before, after) => {
      if (after !== before) {
        changed(after as SriovPhase);
      }
    },
  };
}

function counted(count: number): string {
  return count === 1 ? '1 VF is' : `${count} VFs are`;
}

/** More of a BAR than this at once is data, and no register. */
const MOST_REGISTER_BYTES = 16;

/** Each write of PF and VFs to config space, at debug; with `hasBars` to trapped BARs as well, at trace. */
export function decodedWrites(
  log: Log,
  { pf, vf }: DeviceDescription,
  hasBars = false,
): PartialObserver {
  const shapes = { pf, vf };
  const images = {
    pf: patchedImage(pf.config, PF_CAPABILITIES),
    vf: patchedImage(vf.config, VF_CAPABILITIES),
  };
  const maps = new Map<string, RegisterMap>();
  const mapOf = (kind: 'pf' | 'vf', region: number): RegisterMap => {
    const key = `${kind} ${region}`;
    let map = maps.get(key);
    if (map === undefined) {
      const tables = (shapes[kind].barTables ?? []).filter((table) => table.region === region);
      map =
        region === RegionIndex.config
          ? configMap(images[kind], kind)
          : barMap(region, tables, images[kind]);
      maps.set(key, map);
    }
    return map;
  };
  const seen = new Map<string, Map<number, SeenBytes>>();
  const seenOf = (name: string, kind: 'pf' | 'vf', region: number): SeenBytes => {
    const regions = seen.get(name) ?? new Map<number, SeenBytes>();
    seen.set(name, regions);
    const isConfig = region === RegionIndex.config;
    const bytes = regions.get(region) ?? new SeenBytes(isConfig ? images[kind] : undefined);
    regions.set(region, bytes);
    return bytes;
  };
  return {
    access: (name, isWrite, region, offset, data) => {
      const isConfig = region === RegionIndex.config;
      if (!isConfig && (!hasBars || data.length > MOST_REGISTER_BYTES)) {
        return;
      }
      const kind = name === 'pf' ? 'pf' : 'vf';
      const level = isConfig ? 'debug' : 'trace';
      const access = { isWrite, offset, bytes: data };
      for (const register of decodeAccess(
        mapOf(kind, region),
        seenOf(name, kind, region),
        access,
      )) {
        if (isWrite) {
          log[level](`${name} W ${register.name} ${describeRegister(register, true)}`);
        }
      }
    },
    reset: (name) => {
      seen.delete(name);
    },
    session: (name, what) => {
      if (name !== 'pf' && what === 'gone') {
        seen.delete(name);
      }
    },
    step: (_event, before, after) => {
      if (!takesVfsAway(before, after)) {
        return;
      }
      for (const [name, regions] of seen) {
        if (name !== 'pf') {
          forgetVf(regions, RegionIndex.config, images.vf);
        }
      }
    },
  };
}
