// Reads a user's QEMU command line as far as the launcher depends on it: is the guest's RAM shared, how big is it,
// does the machine have PCI Express, is it to start paused. Pure but for a configuration file, which it is given means to read.
import { failedCall, UserError } from '../../protocol/user-error.ts';
import { parseConfigFile, type QemuOption } from './config-file.ts';
import type { CpuRequest } from './cpu-model.ts';
import { isOn } from './qemu-boolean.ts';
import { checkOptions } from './unfit-options.ts';

/** What a command line asks of QEMU. */
export interface QemuRequest {
  /** Guest RAM in bytes; undefined where it cannot be told. */
  readonly ramBytes: number | undefined;
  /** The user wants the guest not to run yet (`-S`). */
  readonly startsPaused: boolean;
  readonly machine: MachineKind;
  /** It has an expander bus of the user's. */
  readonly hasExpanderBus: boolean;
  readonly cpu: CpuRequest;
}

/** Machines that VFs can be placed in: a PC's, and QEMU's own for aarch64. */
export const MACHINE_KINDS = ['q35', 'virt'] as const;
export type MachineKind = (typeof MACHINE_KINDS)[number];

type Properties = ReadonlyMap<string, string>;

const SHARED_BY_DEFAULT: Record<string, boolean> = {
  'memory-backend-memfd': true,
  'memory-backend-shm': true,
  'memory-backend-file': false,
};
/** Devices whose `memdev` is more RAM of the guest's. */
const RAM_DEVICES = new Set(['pc-dimm', 'nvdimm', 'virtio-mem-pci', 'virtio-pmem-pci']);
const DEFAULT_RAM = '128M';
const SUFFIX_SHIFT: Record<string, number> = { B: 0, K: 10, M: 20, G: 30, T: 40, P: 50, E: 60 };

/**
 * `readFile` gives a file's text. Throws UserError, naming what to write instead, where a device outside QEMU could not work
 * with this machine.
 */
export function checkArguments(
  args: readonly string[],
  readFile: (path: string) => string,
): QemuRequest {
  const options = parseOptions(args).flatMap((option) =>
    option.name === 'readconfig' ? optionsIn(option.value, readFile) : [option],
  );
  const machine = machineOf(options);
  const size = ramSize(options);
  const memory = mainMemory(options, machine);
  checkOptions(options);
  const kind = machineKind(machine.get('type'));
  checkIommu(options, machine);
  checkSharedRam(memory, addedMemory(options), size ?? DEFAULT_RAM);
  return {
    ramBytes: size === undefined ? totalSize(memory) : parseSize(size),
    startsPaused: options.some(({ name }) => name === 'S'),
    machine: kind,
    hasExpanderBus: hasExpanderBus(options),
    cpu: {
      cpu: options.findLast(({ name }) => name === 'cpu')?.value,
      isEmulated: isEmulated(options, machine),
    },
  };
}

function optionsIn(path: string, readFile: (path: string) => string): QemuOption[] {
  let text: string;
  try {
    text = readFile(path);
  } catch (error) {
    throw failedCall(
      error,
      'name a file that can be read, or write what it says as options',
      "QEMU's option -readconfig",
    );
  }
  return parseConfigFile(text);
}

function parseOptions(args: readonly string[]): QemuOption[] {
  return args.flatMap((argument, at) => {
    const match = /^--?([A-Za-z].*)$/.exec(argument);
    // What does not begin with a dash was the value of the option before it, or a disk image.
    return match === null ? [] : [{ name: match[1]!, value: args[at + 1] ?? '' }];
  });
}

/** `key=value,…` or JSON as properties; a first part without `=` becomes `implied`. */
function parseProperties(text: string, implied: string): Properties {
  if (text.startsWith('{')) {
    try {
      const entries = Object.entries(JSON.parse(text) as object);
      return new Map(entries.map(([key, value]) => [key, String(value)]));
    } catch {
      return new Map();
    }
  }
  // A doubled comma stands for one inside a value.
  const parts = text.replaceAll(',,', '\0').split(',');
  return new Map(
    parts.map((part, at) => {
      const [key, ...rest] = part.replaceAll('\0', ',').split('=');
      if (rest.length > 0) {
        return [key!, rest.join('=')];
      }
      return at === 0 ? [implied, key!] : [key!, 'on'];
    }),
  );
}

function machineOf(options: readonly QemuOption[]): Properties {
  const all = options
    .filter(({ name }) => ['machine', 'M'].includes(name))
    .flatMap(({ value }) => [...parseProperties(value, 'type')]);
  return new Map(all);
}

function machineKind(type = 'pc (the default)'): MachineKind {
  const kind = /^(?:pc-)?(q35)(?:-.*)?$|^(virt)(?:-.*)?$/.exec(type);
  if (kind !== null) {
    return (kind[1] ?? kind[2]) as MachineKind;
  }
  // Others have no PCI Express, or no way known to write to its config space, through which the glue places VFs.
  throw new UserError(
    `QEMU machine ${type}: VFs can be placed in a q35, and in a virt of aarch64, only`,
    'add -machine q35, or for qemu-system-aarch64 -machine virt',
  );
}

/** QEMU tells vfio devices behind its SMMUv3 of no mappings, and refuses them with words of its own. */
function checkIommu(options: readonly QemuOption[], machine: Properties): void {
  const devices = propertiesOf(options, 'device', 'driver').map((each) => each.get('driver'));
  if (machine.get('iommu') === 'smmuv3' || devices.includes('arm-smmuv3')) {
    throw new UserError(
      'SMMUv3: QEMU (seen with 11.1) has no vfio-user devices behind this IOMMU',
      'use -device virtio-iommu-pci, or no IOMMU',
    );
  }
}

function hasExpanderBus(options: readonly QemuOption[]): boolean {
  return propertiesOf(options, 'device', 'driver').some((each) =>
    each.get('driver')?.startsWith('pxb'),
  );
}

/** QEMU takes TCG where nothing else is said. */
function isEmulated(options: readonly QemuOption[], machine: Properties): boolean {
  const chosen = propertiesOf(options, 'accel', 'accel').map((each) => each.get('accel'));
  const [first = machine.get('accel')?.split(':')[0] ?? 'tcg'] = chosen;
  return first === 'tcg' && !options.some(({ name }) => name === 'enable-kvm');
}

function ramSize(options: readonly QemuOption[]): string | undefined {
  let size: string | undefined;
  for (const { name, value } of options) {
    if (name === 'm') {
      size = parseProperties(value, 'size').get('size') ?? size;
    }
  }
  return size;
}

type Backends = ReadonlyMap<string, Properties | undefined>;

/** The memory backends that the guest's RAM is made of; undefined for an id that no -object has. */
function mainMemory(options: readonly QemuOption[], machine: Properties): Backends {
  const nodes = propertiesOf(options, 'numa', 'type');
  return backends(options, [machine.get('memory-backend'), ...nodes.map(memdevOf)]);
}

/** Those of devices that add RAM to it. */
function addedMemory(options: readonly QemuOption[]): Backends {
  const devices = propertiesOf(options, 'device', 'driver');
  const added = devices.filter((device) => RAM_DEVICES.has(device.get('driver') ?? ''));
  return backends(options, added.map(memdevOf));
}

function backends(options: readonly QemuOption[], ids: readonly (string | undefined)[]): Backends {
  const objects = propertiesOf(options, 'object', 'qom-type');
  const named = ids.filter((id) => id !== undefined);
  return new Map(named.map((id) => [id, objects.find((each) => each.get('id') === id)]));
}

function memdevOf(properties: Properties): string | undefined {
  return properties.get('memdev');
}

function propertiesOf(options: readonly QemuOption[], name: string, implied: string): Properties[] {
  return options
    .filter((option) => option.name === name)
    .map(({ value }) => parseProperties(value, implied));
}

/** Without -m, the backends' sizes count, which QEMU takes as bytes unless they have a suffix. */
function totalSize(memory: Backends): number | undefined {
  const sizes = [...memory.values()].map((backend) => backend?.get('size') ?? '');
  const bytes = sizes.map((size) => parseSize(/^\d+$/.test(size) ? `${size}B` : size));
  return bytes.reduce((sum: number | undefined, each) => {
    return sum === undefined || each === undefined ? undefined : sum + each;
  }, 0);
}

function checkSharedRam(memory: Backends, added: Backends, ram: string): void {
  const size = /[a-z]$/i.test(ram) ? ram : `${ram}M`;
  if (memory.size === 0) {
    throw new UserError(
      'guest RAM is not shared, so the device could not reach it',
      `add -object memory-backend-memfd,id=ram0,size=${size},share=on -machine memory-backend=ram0`,
    );
  }
  for (const [id, backend] of [...memory, ...added]) {
    checkBackend(id, backend, size);
  }
}

function checkBackend(id: string, backend: Properties | undefined, size: string): void {
  // QEMU itself explains an id that does not exist.
  if (backend === undefined) {
    return;
  }
  const type = backend.get('qom-type') ?? '';
  const byDefault = SHARED_BY_DEFAULT[type];
  if (byDefault === undefined) {
    throw new UserError(
      `guest RAM ${id} is a ${type}, which has no file to share with the device`,
      `replace it with -object memory-backend-memfd,id=${id},size=${backend.get('size') ?? size},share=on`,
    );
  }
  const share = backend.get('share');
  const isShared = share === undefined ? byDefault : isOn(share);
  if (isShared) {
    return;
  }
  throw new UserError(
    `guest RAM ${id} (${type}) is private to QEMU, so the device could not reach it`,
    `add share=on to its -object ${type},id=${id}`,
  );
}

/** The arguments that open a QMP socket at `path`; a comma of a path is doubled in QEMU's options. */
export function qmpArguments(path: string): string[] {
  return ['-qmp', `unix:${path.replaceAll(',', ',,')},server=on,wait=off`];
}

/** Bytes of a size as QEMU's -m takes it: MiB unless it has a suffix. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)([BKMGTPE]?)$/i.exec(text);
  if (match === null) {
    return undefined;
  }
  return Number(match[1]) * 2 ** SUFFIX_SHIFT[(match[2] || 'M').toUpperCase()]!;
}
