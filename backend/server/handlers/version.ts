// VERSION: what both sides agree upon, and what the connection is for from then on.

import { HotplugCommand } from '../../../protocol/hotplug/commands.ts';
import { encodeRegionChanged } from '../../../protocol/hotplug/region-changed.ts';
import { PAGE_BYTES } from '../../../protocol/page.ts';
import { printable } from '../../../protocol/printable.ts';
import { programName } from '../../../protocol/unix/program-version.ts';
import {
  type AgreedCapabilities,
  isCloudHypervisor,
  isOtherVersion,
  negotiate,
} from '../../../protocol/vfio-user/negotiation.ts';
import { parseVersion } from '../../../protocol/vfio-user/version.ts';
import type { Role } from '../../hotplug/endpoint.ts';
import type { Request } from '../handler.ts';
import { MAX_DATA_BYTES } from '../limits.ts';
import type { Session } from '../session.ts';
import { write } from './replies.ts';

/** What QEMU takes at most. */
const MAX_MSG_FDS = 16;
const MAX_DMA_MAPS = 65_535;
const PROGRAM = programName();

export function version(session: Session, { body }: Request): number {
  const { endpoint } = session;
  const proposal = parseVersion(body);
  const { reply, agreed } = negotiate(proposal, {
    maxMsgFds: MAX_MSG_FDS,
    maxDataXferSize: MAX_DATA_BYTES,
    maxDmaMaps: MAX_DMA_MAPS,
    pageSizes: PAGE_BYTES,
    // QEMU (minor version 0) takes a yes for leave to hold back every posted write.
    writeMultiple: proposal.minor > 0,
    hotplug: endpoint.hotplug !== undefined,
    status: endpoint.status !== undefined,
    program: PROGRAM,
  });
  const { hotplug, regionChanged } = agreed;
  if (hotplug?.role === 'glue' && isOtherVersion(PROGRAM, hotplug.program)) {
    return refuseGlue(session, reply, agreed, hotplug.program!);
  }
  const role = roleOf(agreed);
  if (role === 'device') {
    const knowsHotplug = endpoint.native || hotplug !== undefined;
    endpoint.function.attach({
      knowsHotplug,
      seesAllAtOnce: knowsHotplug || isCloudHypervisor(proposal),
      changeRegion:
        regionChanged &&
        ((index, done) =>
          session.command(HotplugCommand.regionChanged, encodeRegionChanged(index), [], () => {
            done();
            return true;
          })),
    });
  }
  if (hotplug !== undefined) {
    try {
      endpoint.hotplug?.attach(session, hotplug.role);
    } catch (error) {
      if (role === 'device') {
        endpoint.function.detach();
      }
      throw error;
    }
  }
  session.role = role;
  session.agreed = agreed;
  const { observers, name } = endpoint.function;
  observers.session(name, 'agreed', {
    role,
    version: `${proposal.major}.${proposal.minor}`,
    ...agreed,
  });
  return write(session, reply);
}

/** It is told our name, by which it ends; until then it may do nothing. */
function refuseGlue(
  session: Session,
  reply: Uint8Array,
  agreed: AgreedCapabilities,
  program: string,
): number {
  session.log.warn(
    `a glue is ${printable(program)}, and this backend ${PROGRAM}: it is refused; use the glue that came with this backend`,
  );
  const { hotplug: _, status: __, regionChanged: ___, ...rest } = agreed;
  session.role = 'observer';
  session.agreed = rest;
  return write(session, reply);
}

function roleOf({ hotplug, status }: AgreedCapabilities): Role {
  if (hotplug === undefined) {
    return status === undefined ? 'device' : 'observer';
  }
  return hotplug.role === 'glue' ? 'glue' : 'device';
}
