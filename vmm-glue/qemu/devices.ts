// Where a backend's functions sit in a running QEMU: finds the vfio-user-pci device that is connected to a PF's
// socket, and the functions at its VFs' routing IDs. QEMU gives no socket back, but names the device's memory
// regions after it (seen with 11.1); where that fails, the ids that topology.ts gives are looked for.
import { basename, resolve } from 'node:path';
import { UserError } from '../../protocol/user-error.ts';
import { type PciDevice, pciBuses, qomProperties, text, whole } from './answers.ts';
import type { Monitor } from './monitor.ts';
import type { BarPlacement } from './placement.ts';
import { QmpError } from './qmp.ts';

/** Asks with QMP commands; a Monitor. */
export type Asker = Pick<Monitor, 'ask'>;

/** A vfio-user-pci device of QEMU's. `devfn`: device number × 8 + function number. */
export interface QemuFunction {
  readonly qomPath: string;
  readonly id: string;
  readonly devfn: number;
  readonly bus: QemuBus;
  /** The vfio-user socket it is connected to, where QEMU tells. */
  readonly socketPath: string | undefined;
}

/** A PCI bus of QEMU's: the root bus, or that behind a bridge. */
export interface QemuBus {
  readonly qomPath: string;
  readonly bridge: { readonly devfn: number; readonly bus: QemuBus } | undefined;
}

interface QomProperty {
  readonly name: string;
  readonly type: string;
}

const PERIPHERALS = ['/machine/peripheral', '/machine/peripheral-anon'];
/** PCI numbers so many buses. */
const MAX_BRIDGES = 256;
const DEVICE_TYPE = 'child<vfio-user-pci>';

/** All vfio-user-pci devices of a QEMU. Rejects with QmpError or QmpUnavailableError. */
export async function findFunctions(qemu: Asker): Promise<readonly QemuFunction[]> {
  const buses = new Map<string, QemuBus>();
  const found: QemuFunction[] = [];
  for (const folder of PERIPHERALS) {
    for (const { name, type } of await list(qemu, folder)) {
      if (type !== DEVICE_TYPE) {
        continue;
      }
      const qomPath = `${folder}/${name}`;
      found.push({
        qomPath,
        id: name,
        devfn: await devfnOf(qemu, qomPath),
        bus: await busOf(qemu, await parentBus(qemu, qomPath), buses),
        socketPath: socketPathIn(await list(qemu, qomPath)),
      });
    }
  }
  return found;
}

/** The PF among `functions` that serves `socketPath`. Throws UserError that names what is there instead. */
export function findPf(
  functions: readonly QemuFunction[],
  socketPath: string,
  id: string,
): QemuFunction {
  const wanted = resolve(socketPath);
  const bySocket = functions.filter(
    (each) => each.socketPath !== undefined && resolve(each.socketPath) === wanted,
  );
  if (bySocket[0] !== undefined) {
    return bySocket[0];
  }
  // QEMU may see another folder than we do, as in a container, or not tell sockets at all.
  const alike = functions.filter(
    (each) => each.socketPath === undefined || basename(each.socketPath) === basename(wanted),
  );
  const match =
    alike.find((each) => each.id === id) ??
    (alike.length === 1 && alike[0]?.socketPath !== undefined ? alike[0] : undefined);
  if (match !== undefined) {
    return match;
  }
  const there = functions.map((each) => `${each.id} (${each.socketPath ?? 'socket unknown'})`);
  throw new UserError(
    `QEMU has no vfio-user-pci device on ${socketPath}; it has ${there.join(', ') || 'none at all'}`,
    'start it with the arguments that "vfio-user-sriov qemu-args" prints',
  );
}

/** What the guest has set up, as last asked: numbers of its buses (a root bus needs none asked), BARs. */
export class BusNumbers {
  #devices: readonly PciDevice[] = [];

  /** Asks QEMU; one command. */
  async refresh(qemu: Asker): Promise<void> {
    const buses = await qemu.ask('query-pci', pciBuses);
    this.#devices = buses.flatMap((bus) => bus.devices ?? []).flatMap(withChildren);
  }

  /** The whole machine was reset: no bridge is set up, no BAR mapped. */
  forget(): void {
    this.#devices = [];
  }

  /** Whether a BAR of the function has an address at which QEMU shows it. */
  isMapped({ bus, devfn }: QemuFunction): boolean {
    const regions = this.#deviceAt(this.of(bus), devfn)?.regions ?? [];
    return regions.some(({ address }) => address >= 0);
  }

  /** Whether a function has a BAR that shares an address with these; not those that `isOurs` names by their -device's id. */
  areTaken(bars: readonly BarPlacement[], isOurs: (id: string) => boolean): boolean {
    return this.#devices
      .filter(({ qdev_id }) => !isOurs(qdev_id ?? ''))
      .flatMap(({ regions }) => regions ?? [])
      .filter(({ address }) => address >= 0)
      .some((region) =>
        bars.some(
          (bar) =>
            Number(bar.address) < region.address + region.size &&
            region.address < Number(bar.address + bar.size),
        ),
      );
  }

  /** The number, or undefined while the guest has not numbered the bus. */
  of(bus: QemuBus): number | undefined {
    const { bridge } = bus;
    if (bridge === undefined) {
      return 0;
    }
    const device = this.#deviceAt(this.of(bridge.bus), bridge.devfn);
    // 0 is the root bus: a bridge that leads there has not been set up.
    return device?.pci_bridge?.bus.secondary || undefined;
  }

  /** Whether nothing is on the bus but functions that `isOurs` names by their -device's id. */
  isOnlyOurs(bus: QemuBus, isOurs: (id: string) => boolean): boolean {
    const number = this.of(bus);
    return this.#devices.every((each) => each.bus !== number || isOurs(each.qdev_id ?? ''));
  }

  /** The bridges on the way to a bus from the root, and the number behind each. */
  wayTo({ bridge }: QemuBus): { readonly routingId: number; readonly secondary: number }[] {
    if (bridge === undefined) {
      return [];
    }
    const bus = this.of(bridge.bus) ?? 0;
    const secondary = this.#deviceAt(bus, bridge.devfn)?.pci_bridge?.bus.secondary ?? 0;
    return [...this.wayTo(bridge.bus), { routingId: (bus << 8) | bridge.devfn, secondary }];
  }

  /** The function that a -device with this id made. */
  named(id: string): PciDevice | undefined {
    return this.#devices.find(({ qdev_id }) => qdev_id === id);
  }

  #deviceAt(bus: number | undefined, devfn: number): PciDevice | undefined {
    return this.#devices.find(
      (each) => each.bus === bus && each.slot === devfn >> 3 && each.function === (devfn & 7),
    );
  }
}

/** The socket path in the names of a device's memory regions: `vfio-user:PATH base BAR 0[0]`. */
export function socketPathIn(properties: readonly QomProperty[]): string | undefined {
  for (const { name, type } of properties) {
    if (type !== 'child<memory-region>') {
      continue;
    }
    const match = /^vfio-user:(.+?)(?: base)? BAR \d+\[\d+\]$/.exec(unescapeName(name));
    if (match !== null) {
      return match[1];
    }
  }
  return undefined;
}

/** QEMU writes `/`, `[`, `]` and the backslash in such names as \xNN. */
function unescapeName(name: string): string {
  return name.replace(/\\x([0-9a-f]{2})/gi, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 16)),
  );
}

/** A device of a `query-pci`, and all that is behind it. */
export function withChildren(device: PciDevice): readonly PciDevice[] {
  return [device, ...(device.pci_bridge?.devices ?? []).flatMap(withChildren)];
}

async function busOf(
  qemu: Asker,
  qomPath: string,
  known: Map<string, QemuBus>,
  behind: readonly string[] = [],
): Promise<QemuBus> {
  const before = known.get(qomPath);
  if (before !== undefined) {
    return before;
  }
  if (behind.includes(qomPath) || behind.length > MAX_BRIDGES) {
    throw new QmpError('qom-get', 'Malformed', `${qomPath}, a bus behind itself`);
  }
  const owner = qomPath.slice(0, qomPath.lastIndexOf('/'));
  const isBehindBridge = PERIPHERALS.some((folder) => owner.startsWith(`${folder}/`));
  const bridge = isBehindBridge
    ? {
        devfn: await devfnOf(qemu, owner),
        bus: await busOf(qemu, await parentBus(qemu, owner), known, [...behind, qomPath]),
      }
    : undefined;
  const bus = { qomPath, bridge };
  known.set(qomPath, bus);
  return bus;
}

async function list(qemu: Asker, path: string): Promise<QomProperty[]> {
  return await qemu.ask('qom-list', qomProperties, { path });
}

async function parentBus(qemu: Asker, path: string): Promise<string> {
  return await qemu.ask('qom-get', text, { path, property: 'parent_bus' });
}

async function devfnOf(qemu: Asker, path: string): Promise<number> {
  return await qemu.ask('qom-get', whole, { path, property: 'addr' });
}
