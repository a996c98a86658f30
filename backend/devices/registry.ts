// The kinds of device there are: two lines each, its options and where its code is. Code is loaded on demand, on both
// threads, because a backend should be ready at once.

import { PROFILE_OPTION } from './device-profile.ts';
import type { DeviceKind, KindOption } from './kind.ts';
import { LOOPBACK_OPTIONS } from './loopback/options.ts';
import { NVME_OPTIONS } from './nvme/options.ts';
import { VFIO_OPTIONS } from './vfio/options.ts';

interface Entry {
  readonly options: readonly KindOption[];
  readonly load: () => Promise<DeviceKind>;
}

/** By name, as `--device` takes it; `vfio` is what `--pf` stands for. */
export const KINDS: Readonly<Record<string, Entry>> = {
  'endpoint-test': {
    options: [PROFILE_OPTION],
    load: async () => (await import('./endpoint-test/kind.ts')).endpointTestKind,
  },
  loopback: {
    options: LOOPBACK_OPTIONS,
    load: async () => (await import('./loopback/kind.ts')).loopbackKind,
  },
  nvme: {
    options: NVME_OPTIONS,
    load: async () => (await import('./nvme/kind.ts')).nvmeKind,
  },
  vfio: {
    options: VFIO_OPTIONS,
    load: async () => (await import('./vfio/kind.ts')).vfioKind,
  },
};

/** The options of a card of somebody's own, which `--device` names by its file. */
export const DEVICE_FILE_OPTIONS: readonly KindOption[] = [PROFILE_OPTION];

/** Whether `--device` names a file, which holds a card of somebody's own. */
export function isDeviceFile(name: string): boolean {
  return /\/|\.[mc]?[jt]s$/.test(name);
}

/** By name, or by file, which is not looked at yet. @throws Error for a name that no kind has */
export async function loadKind(name: string): Promise<DeviceKind> {
  if (isDeviceFile(name)) {
    return (await import('./module/kind.ts')).moduleKind(name);
  }
  const entry = KINDS[name];
  if (entry === undefined) {
    throw new Error(`no kind of device is called ${name}`);
  }
  return entry.load();
}
