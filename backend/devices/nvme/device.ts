// The NVMe device: an SSD in RAM or in a file, whose PF and VFs are controllers that the in-tree drivers bind.

import { type Log, SILENT } from '../../../protocol/log.ts';
import { type Faults, NO_FAULTS } from '../../device/faults.ts';
import { registerValue } from '../../pci/registers.ts';
import { type Clothes, dressed } from '../kit/clothes.ts';
import {
  type DeviceDeclaration,
  memoryBar,
  msixTable,
  registers,
  trapped,
} from '../kit/declaration.ts';
import { Controller, LARGEST_PAGE } from './controller.ts';
import { doorbellTable, STRIDE } from './doorbells.ts';
import { VENDOR_ID } from './identify.ts';
import { MOST_ENTRIES } from './queue-set.ts';
import { CONTROLLER, CONTROLLER_NAMES, DOORBELLS, VERSION_1_4 } from './spec/registers.ts';
import { fileStorage, oneAtATime } from './storage.ts';
import { Resources, Subsystem } from './subsystem.ts';

/** Nobody's: a driver binds by class, and works around nothing. */
const DEVICE = 0x10c0;
const VF_DEVICE = 0x10c1;
/** Non-volatile memory controller, NVM Express I/O. */
const CLASS_CODE = 0x01_08_02;
const BAR_BYTES = 16 * 1024;
const Layout = { doorbellBytes: 0x1000, msixTable: 0x2000, msixPending: 0x3000 } as const;
const TIMEOUT_IN_500_MS = 15;
/** Before the registers' names in traces. */
const TITLE = 'NVMe';

/** Where a namespace is: so many bytes from `start` on of an open file. */
export interface Extent {
  readonly fd: number;
  readonly start: number;
  readonly bytes: number;
  /** It is a file on a disk, which Flush writes through to. */
  readonly isOnDisk?: boolean;
}

/** Has what a function's namespace holds put on its disk, and tells later whether it was. */
export type SyncStorage = (index: number, done: (isOnDisk: boolean) => void) => void;

export interface NvmeOptions {
  readonly totalVfs: number;
  readonly vfs: 'online' | 'offline';
  readonly serialNumber: string;
  readonly uuid: Uint8Array;
  /** The PF's first, then each VF's. */
  readonly namespaces: readonly Extent[];
  /** The card that it looks like. */
  readonly clothes?: Clothes | undefined;
}

export function declareNvme(
  options: NvmeOptions,
  faults: Faults = NO_FAULTS,
  syncStorage: SyncStorage = (_index, done) => done(true),
  log: Log = SILENT,
): DeviceDeclaration<Subsystem> {
  const { clothes, namespaces, totalVfs } = options;
  const declared: DeviceDeclaration<Subsystem> = {
    name: 'nvme',
    vendorId: VENDOR_ID,
    deviceId: DEVICE,
    vfDeviceId: VF_DEVICE,
    classCode: CLASS_CODE,
    revision: 2,
    totalVfs,
    share: () => {
      const storages = namespaces.map((extent, position) => {
        const index = position - 1;
        const sync = oneAtATime((done) => syncStorage(index, done));
        const refused = (why: string): void => {
          const whose = index < 0 ? 'pf' : `vf${index}`;
          log.warn(
            `${whose}: the guest is given an error, since its namespace's file refuses: ${why}`,
          );
        };
        return fileStorage(extent.fd, extent, refused, extent.isOnDisk === true ? sync : undefined);
      });
      const { vendorId, subsystemVendorId = vendorId } = device;
      const vendorIds = { vendorId, subsystemVendorId };
      return new Subsystem({ ...options, vendorIds }, (index) => storages[index + 1]!);
    },
    pf: controller(Resources.primaryPrivate + Resources.mostFlexibleOfPrimary, faults),
    vf: controller(Resources.mostPerSecondary, faults),
  };
  const device = dressed(declared, clothes);
  return device;
}

/** As many vectors as queue pairs: the admin queue's is one of each. */
function controller(queuePairs: number, faults: Faults): DeviceDeclaration<Subsystem>['pf'] {
  const doorbells = doorbellTable(queuePairs, STRIDE);
  return {
    bars: [
      memoryBar(0, BAR_BYTES, [
        registers(
          0,
          CONTROLLER,
          {
            capabilitiesLow: registerValue(CONTROLLER.capabilitiesLow, {
              maximumQueueEntries: MOST_ENTRIES - 1,
              contiguousQueuesRequired: 1,
              timeout: TIMEOUT_IN_500_MS,
            }),
            capabilitiesHigh: registerValue(CONTROLLER.capabilitiesHigh, {
              doorbellStride: STRIDE,
              commandSets: 1,
              largestPage: LARGEST_PAGE,
            }),
            version: VERSION_1_4,
          },
          { title: TITLE, names: CONTROLLER_NAMES },
        ),
        trapped(DOORBELLS, Layout.doorbellBytes, doorbells.table, {
          title: TITLE,
          names: doorbells.names,
        }),
        msixTable(Layout.msixTable, Layout.msixPending),
      ]),
    ],
    msixVectors: queuePairs,
    advancedErrorReporting: true,
    create: (port, subsystem) => new Controller(port, { subsystem, queuePairs, faults }),
  };
}
