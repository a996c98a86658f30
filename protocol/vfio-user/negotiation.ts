// The VERSION handshake: decides what a server answers to a proposal, and what a client then goes by. Pure.
// Limits are each sender's own: the server answers what it takes, whatever the client says of its side. The answer
// suits the strictest clients: minor version, keys and length never exceed what was proposed (QEMU 11.1 reads it into
// its request's buffer), and the limits are those that QEMU takes.
import { WireError } from '../errno.ts';
import { toNumber } from '../record.ts';
import { type Capabilities, encodeVersion, type VersionMessage } from './version.ts';

/** Which side of the hot-plug extension a client plays. */
export type HotplugRole = 'vmm' | 'glue';

/** What a client may send: the server's limits, with the standard's defaults filled in. */
export interface AgreedCapabilities {
  major: number;
  minor: number;
  maxMsgFds: number;
  maxDataXferSize: number;
  maxDmaMaps: number;
  /** Mask of page sizes. */
  pageSizes: number;
  writeMultiple: boolean;
  /** `program`: the peer's name and version, where it says so. */
  hotplug?: { version: number; role: HotplugRole; program?: string };
  status?: { version: number };
  regionChanged?: { version: number };
}

/** What this server can do. `writeMultiple` stays off for QEMU (it would turn on queueing of its posted writes). */
export interface NegotiationLimits {
  maxMsgFds: number;
  maxDataXferSize: number;
  maxDmaMaps: number;
  pageSizes: number;
  writeMultiple: boolean;
  hotplug: boolean;
  status: boolean;
  /** Name and version, for who says its own: `vfio-user-sriov 0.2.0`. */
  program?: string;
}

/** QEMU 11.1 refuses a server that announces more than this; pages below 4096 likewise. */
const mostThatQemuTakes = {
  maxMsgFds: 16,
  maxDataXferSize: 64 * 1024 * 1024,
  maxDmaMaps: 65535,
} as const;

/** Values that the standard gives to absent keys. */
const defaults = {
  maxMsgFds: 1,
  maxDataXferSize: 1024 * 1024,
  maxDmaMaps: 65535,
  pageSizes: 4096,
} as const;

const HIGHEST_MINOR = 1;
const EXTENSION_VERSION = 1;

/**
 * The server's answer to a proposal: keys that were not proposed are never sent, and if the answer would be longer than
 * the proposal, the least important keys are left out.
 * @throws WireError ENOTSUP for another major version, EINVAL when no page size is common.
 */
export function negotiate(
  proposal: VersionMessage,
  limits: NegotiationLimits,
): { reply: Uint8Array; agreed: AgreedCapabilities } {
  if (proposal.major !== 0) {
    throw new WireError(
      'ENOTSUP',
      `vfio-user ${proposal.major}.${proposal.minor} was proposed: only major version 0 is spoken`,
    );
  }
  const minor = Math.min(proposal.minor, HIGHEST_MINOR);
  const answer = fitInto(proposal, minor, answerTo(proposal.capabilities ?? {}, limits));
  return {
    reply: encodeVersion(0, minor, answer),
    agreed: agreementOf(proposal.capabilities ?? {}, answer ?? {}, minor, proposal),
  };
}

/**
 * Whether the proposal is Cloud Hypervisor's (the rust-vmm vfio-user crate): it resets no device that says it can be reset,
 * so nothing that waits for a reset would ever come to be. QEMU is not to be taken for it, whatever minor version it
 * proposes one day: it names other limits as well.
 */
export function isCloudHypervisor({ minor, capabilities }: VersionMessage): boolean {
  if (minor < 1 || capabilities === undefined) {
    return false;
  }
  const { max_msg_fds: maxMsgFds, migration = {} } = capabilities;
  return (
    maxMsgFds === 1 &&
    haveSameKeys(capabilities, ['max_msg_fds', 'max_data_xfer_size', 'migration']) &&
    haveSameKeys(migration, ['pgsize'])
  );
}

function haveSameKeys(object: object, keys: readonly string[]): boolean {
  const found = Object.keys(object);
  return found.length === keys.length && keys.every((key) => found.includes(key));
}

/**
 * What a client goes by after the server's answer. @throws WireError EINVAL when the answer breaks the rules: another
 * major version, a higher minor version, or an extension that was not proposed, or not in that version.
 */
export function acceptVersion(
  proposed: Pick<VersionMessage, 'major' | 'minor' | 'capabilities'>,
  answer: VersionMessage,
): AgreedCapabilities {
  if (answer.major !== proposed.major || answer.minor > proposed.minor) {
    throw new WireError(
      'EINVAL',
      `the server answers ${answer.major}.${answer.minor} to ${proposed.major}.${proposed.minor}: it must not answer more`,
    );
  }
  const mine = proposed.capabilities ?? {};
  const theirs = answer.capabilities ?? {};
  for (const key of ['sriov_hotplug', 'sriov_status', 'region_changed', 'twin_socket'] as const) {
    if (theirs[key] !== undefined && mine[key] === undefined) {
      throw new WireError('EINVAL', `the server answers ${key}, which was not proposed`);
    }
  }
  for (const key of ['sriov_hotplug', 'sriov_status', 'region_changed'] as const) {
    const [most, answered] = [mine[key]?.version ?? 0, theirs[key]?.version ?? 0];
    if (answered > most) {
      throw new WireError(
        'EINVAL',
        `the server answers ${key} of version ${answered} to ${most}: it must not answer more`,
      );
    }
  }
  return agreementOf(mine, theirs, answer.minor, answer);
}

function answerTo(proposed: Capabilities, limits: NegotiationLimits): Capabilities {
  const most = mostThatQemuTakes;
  const answer: Capabilities = {};
  if (proposed.sriov_hotplug !== undefined && limits.hotplug && roleOf(proposed) !== undefined) {
    const { version, program } = proposed.sriov_hotplug;
    answer.sriov_hotplug = {
      version: Math.min(version, EXTENSION_VERSION),
      ...(program === undefined || limits.program === undefined ? {} : { program: limits.program }),
    };
  }
  if (proposed.sriov_status !== undefined && limits.status) {
    answer.sriov_status = { version: Math.min(proposed.sriov_status.version, EXTENSION_VERSION) };
  }
  if (proposed.region_changed !== undefined) {
    answer.region_changed = {
      version: Math.min(proposed.region_changed.version, EXTENSION_VERSION),
    };
  }
  if (proposed.write_multiple === true && limits.writeMultiple) {
    answer.write_multiple = true;
  }
  if (proposed.max_data_xfer_size !== undefined) {
    answer.max_data_xfer_size = Math.min(limits.maxDataXferSize, most.maxDataXferSize);
  }
  if (proposed.max_msg_fds !== undefined) {
    answer.max_msg_fds = Math.min(limits.maxMsgFds, most.maxMsgFds);
  }
  if (proposed.pgsizes !== undefined) {
    answer.pgsizes = ownPageSizes(proposed.pgsizes, limits.pageSizes);
  }
  if (proposed.max_dma_maps !== undefined) {
    answer.max_dma_maps = Math.min(limits.maxDmaMaps, most.maxDmaMaps);
  }
  return answer;
}

/** Drops keys, the last (least important) first, until the reply is no longer than the proposal. */
function fitInto(
  proposal: VersionMessage,
  minor: number,
  answer: Capabilities,
): Capabilities | undefined {
  if (proposal.capabilities === undefined) {
    return undefined;
  }
  const entries = Object.entries(answer);
  while (encodeVersion(0, minor, Object.fromEntries(entries)).length > proposal.length) {
    if (entries.pop() === undefined) {
      return undefined;
    }
  }
  return Object.fromEntries(entries);
}

function agreementOf(
  proposed: Capabilities,
  answer: Capabilities,
  minor: number,
  peer: Pick<VersionMessage, 'capabilities'>,
): AgreedCapabilities {
  const agreed: AgreedCapabilities = {
    major: 0,
    minor,
    maxMsgFds: answer.max_msg_fds ?? defaults.maxMsgFds,
    maxDataXferSize: answer.max_data_xfer_size ?? defaults.maxDataXferSize,
    maxDmaMaps: answer.max_dma_maps ?? defaults.maxDmaMaps,
    pageSizes: answer.pgsizes ?? defaults.pageSizes,
    writeMultiple: answer.write_multiple === true,
  };
  const role = roleOf(proposed);
  if (answer.sriov_hotplug !== undefined && role !== undefined) {
    const program = peer.capabilities?.sriov_hotplug?.program;
    agreed.hotplug = {
      version: answer.sriov_hotplug.version,
      role,
      ...(program === undefined ? {} : { program }),
    };
  }
  if (answer.sriov_status !== undefined) {
    agreed.status = { version: answer.sriov_status.version };
  }
  if (answer.region_changed !== undefined) {
    agreed.regionChanged = { version: answer.region_changed.version };
  }
  return agreed;
}

/** Whether it is the same program in another version; whoever says nothing goes by the extension's version alone. */
export function isOtherVersion(own: string, peer: string | undefined): boolean {
  return peer !== undefined && peer !== own && peer.split(' ')[0] === own.split(' ')[0];
}

/** Undefined for a role that this version does not know: it is then not agreed, which the client sees in the reply. */
function roleOf(proposed: Capabilities): HotplugRole | undefined {
  const role = proposed.sriov_hotplug?.role;
  return role === 'vmm' || role === 'glue' ? role : undefined;
}

function ownPageSizes(theirs: number, ours: number): number {
  const own = BigInt(ours) & ~0xfffn;
  if ((BigInt(theirs) & own) === 0n) {
    throw new WireError(
      'EINVAL',
      `pgsizes 0x${theirs.toString(16)} has no page size in common with 0x${ours.toString(16)}`,
    );
  }
  return toNumber(own, 'pgsizes');
}
