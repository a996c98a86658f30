// Which command is handled by what, and whose connections may ask it: the handlers themselves are in handlers/. A handler
// checks the message, asks the served function, and gives the length of the body that it wrote, or LATER; whatever it
// throws becomes an error reply.

import { HotplugCommand } from '../../protocol/hotplug/commands.ts';
import { Command } from '../../protocol/vfio-user/commands.ts';
import type { Role } from '../hotplug/endpoint.ts';
import type { Handlers } from './handler.ts';
import { deviceFeature, deviceReset, deviceSetIrqs } from './handlers/control.ts';
import { dmaMap, dmaUnmap } from './handlers/dma.ts';
import {
  deviceGetInfo,
  deviceGetIrqInfo,
  deviceGetRegionInfo,
  deviceGetRegionIoFds,
} from './handlers/information.ts';
import {
  faults,
  getSlots,
  getStatus,
  glueEvents,
  traceStart,
  traceStop,
  traceWatch,
  vfsTrapped,
} from './handlers/observing.ts';
import { regionRead, regionWrite, regionWriteMulti } from './handlers/regions.ts';
import { version } from './handlers/version.ts';

const DEVICE: readonly Role[] = ['device'];
const ANYBODY: readonly Role[] = ['device', 'glue', 'observer'];

export const HANDLERS: Handlers = {
  [Command.version]: { roles: ['new'], handle: version },
  [Command.dmaMap]: { roles: DEVICE, handle: dmaMap },
  [Command.dmaUnmap]: { roles: DEVICE, handle: dmaUnmap },
  [Command.deviceGetInfo]: { roles: DEVICE, handle: deviceGetInfo },
  [Command.deviceGetRegionInfo]: { roles: DEVICE, handle: deviceGetRegionInfo },
  [Command.deviceGetRegionIoFds]: { roles: DEVICE, handle: deviceGetRegionIoFds },
  [Command.deviceGetIrqInfo]: { roles: DEVICE, handle: deviceGetIrqInfo },
  [Command.deviceSetIrqs]: { roles: DEVICE, handle: deviceSetIrqs },
  [Command.regionRead]: { roles: DEVICE, handle: regionRead },
  [Command.regionWrite]: { roles: DEVICE, handle: regionWrite },
  [Command.regionWriteMulti]: { roles: DEVICE, handle: regionWriteMulti },
  [Command.deviceReset]: { roles: DEVICE, handle: deviceReset },
  [Command.deviceFeature]: { roles: DEVICE, handle: deviceFeature },
  [HotplugCommand.getStatus]: { roles: ANYBODY, handle: getStatus },
  [HotplugCommand.traceStart]: { roles: ANYBODY, handle: traceStart },
  [HotplugCommand.traceStop]: { roles: ANYBODY, handle: traceStop },
  [HotplugCommand.traceWatch]: { roles: ANYBODY, handle: traceWatch },
  [HotplugCommand.faults]: { roles: ANYBODY, handle: faults },
  [HotplugCommand.glueEvents]: { roles: ['glue'], handle: glueEvents },
  [HotplugCommand.getSlots]: { roles: ['glue'], handle: getSlots },
  [HotplugCommand.vfsTrapped]: { roles: ['glue'], handle: vfsTrapped },
};
