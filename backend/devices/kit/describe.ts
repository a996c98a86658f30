// From a declaration to the device's description: what every question of a client is answered from before a function
// is open. The same on both threads.

import { RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import type {
  BarTable,
  DeviceDescription,
  FunctionShape,
  RegionShape,
} from '../../device/physical-device.ts';
import type { Register, RegisterTable } from '../../pci/registers.ts';
import { EXTENDED_CONFIG_BYTES } from '../../pci/spec/header.ts';
import { planConfig } from './config.ts';
import type { BarDeclaration, DeviceDeclaration, FunctionDeclaration } from './declaration.ts';
import { irqShapes } from './irq-shapes.ts';

const REGION_COUNT = 9;

export function describeDevice<Shared>(device: DeviceDeclaration<Shared>): DeviceDescription {
  return {
    name: device.name,
    pf: shapeOf(device, device.pf, false),
    vf: shapeOf(device, device.vf, true),
    totalVfs: device.totalVfs,
    vfDeviceId: device.vfDeviceId,
    leastMakingMilliseconds: device.enableMilliseconds ?? 0,
    vfBars: device.vf.bars.map(barShape),
  };
}

function shapeOf<Shared>(
  device: DeviceDeclaration<Shared>,
  declared: FunctionDeclaration<Shared>,
  isVf: boolean,
): FunctionShape {
  const config = new Uint8Array(EXTENDED_CONFIG_BYTES);
  const { space } = planConfig(device, declared, isVf, false).open(() => {});
  space.read(0, config.length, config);
  return {
    config,
    bars: declared.bars.map(barShape),
    regions: Array.from({ length: REGION_COUNT }, (_, index) => regionOf(declared.bars, index)),
    irqs: irqShapes(
      declared.interruptPin !== undefined,
      declared.msiVectors ?? 0,
      declared.msixVectors ?? 0,
    ),
    barTables: declared.bars.flatMap(tablesOf),
  };
}

function tablesOf({ index, parts }: BarDeclaration): BarTable[] {
  return parts.flatMap((part) => {
    if ((part.kind !== 'registers' && part.kind !== 'trapped') || part.table === undefined) {
      return [];
    }
    const { title = '', names } = part.labels ?? {};
    const named = names === undefined ? {} : { names: { ...names } };
    return [{ region: index, title, offset: part.at, table: plainTable(part.table), ...named }];
  });
}

/** What goes to another thread: the table may be somebody else's, and have more to it. */
function plainTable(table: RegisterTable): RegisterTable {
  return Object.fromEntries(
    Object.entries(table).map(([name, { offset, bytes, rw, rw1c, fields }]) => [
      name,
      { offset, bytes, rw, rw1c, fields: plainFields(fields) },
    ]),
  );
}

function plainFields(fields: Register['fields']): Register['fields'] {
  return Object.fromEntries(
    Object.entries(fields).map(([name, { high, low, access }]) => [name, { high, low, access }]),
  );
}

function barShape({ index, size, kind, prefetchable }: BarDeclaration) {
  return { index, size, kind, prefetchable };
}

function regionOf(bars: readonly BarDeclaration[], index: number): RegionShape {
  const bar = bars.find((each) => each.index === index);
  const isConfig = index === RegionIndex.config;
  const exists = bar !== undefined || isConfig;
  const pages = (bar?.parts ?? []).filter((part) => part.kind === 'ram');
  return {
    index,
    size: isConfig ? EXTENDED_CONFIG_BYTES : (bar?.size ?? 0),
    readable: exists,
    writable: exists,
    mappable: pages.map(({ at, size }) => ({ offset: at, size })),
  };
}
