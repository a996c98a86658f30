// The body of VERSION, request and reply: two numbers and JSON, read with suspicion. Pure. negotiation.ts decides what is
// answered to it.
import { WireError } from '../errno.ts';
import { VersionPrefix } from './messages.ts';

/** The "capabilities" object of VERSION; unknown keys are kept but mean nothing here. */
export interface Capabilities {
  max_msg_fds?: number;
  max_data_xfer_size?: number;
  max_dma_maps?: number;
  /** Mask of page sizes that DMA_MAP may use. */
  pgsizes?: number;
  write_multiple?: boolean;
  twin_socket?: { supported?: boolean; fd_index?: number };
  migration?: { pgsize?: number; max_bitmap_size?: number };
  /** The hot-plug extension (protocol/hotplug/README.md); a reply carries no role. */
  sriov_hotplug?: { version: number; role?: string; program?: string };
  /** The status observer of the same document. */
  sriov_status?: { version: number };
  /** The client maps a region anew when it is told to (same document). */
  region_changed?: { version: number };
  [unknown: string]: unknown;
}

/** What the peer proposed (or answered); `length` is that of the message body. */
export interface VersionMessage {
  major: number;
  minor: number;
  /** Undefined when the message had no JSON. */
  capabilities: Capabilities | undefined;
  length: number;
}

/** The longest VERSION body that is read, in bytes: what known clients send has less than 300. */
export const LONGEST_VERSION = 4096;
/** Levels of objects and lists that its JSON may have inside each other; what known clients send has 3. */
export const DEEPEST_NESTING = 16;

/** Reads a VERSION body, request or reply; a missing NUL is tolerated. @throws WireError EINVAL for anything malformed. */
export function parseVersion(body: Uint8Array): VersionMessage {
  if (body.length > LONGEST_VERSION) {
    throw new WireError(
      'EINVAL',
      `the body has ${body.length} bytes: at most ${LONGEST_VERSION} are read`,
      { call: 'VERSION' },
    );
  }
  const { major, minor } = VersionPrefix.decode(body);
  const rest = body.subarray(VersionPrefix.size);
  const nul = rest.indexOf(0);
  const json = nul < 0 ? rest : rest.subarray(0, nul);
  const capabilities = json.length === 0 ? undefined : parseCapabilities(json);
  return { major, minor, capabilities, length: body.length };
}

/** Writes a VERSION body; without capabilities it carries no JSON. */
export function encodeVersion(
  major: number,
  minor: number,
  capabilities: Capabilities | undefined,
): Uint8Array {
  const json = capabilities === undefined ? '' : `${JSON.stringify({ capabilities })}\0`;
  const text = new TextEncoder().encode(json);
  const body = new Uint8Array(VersionPrefix.size + text.length);
  VersionPrefix.encode({ major, minor }, body);
  body.set(text, VersionPrefix.size);
  return body;
}

function parseCapabilities(json: Uint8Array): Capabilities {
  let message: unknown;
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(json);
    message = nestingOf(text) > DEEPEST_NESTING ? undefined : JSON.parse(text);
  } catch (error) {
    throw new WireError('EINVAL', `VERSION carries no valid JSON: ${(error as Error).message}`);
  }
  if (message === undefined) {
    throw new WireError(
      'EINVAL',
      `the JSON of VERSION is nested more than ${DEEPEST_NESTING} levels deep`,
    );
  }
  const { capabilities = {} } = objectOf(message, 'the JSON of VERSION');
  const object = objectOf(capabilities, 'capabilities');
  for (const [key, check] of Object.entries(checks)) {
    const value = object[key];
    if (value !== undefined) {
      check(value, key);
    }
  }
  return object as Capabilities;
}

/** Levels of objects and lists; brackets inside texts do not count. */
function nestingOf(json: string): number {
  let depth = 0;
  let deepest = 0;
  for (const bracket of json.replace(/"(?:[^"\\]|\\.)*"?/g, '').replace(/[^[\]{}]/g, '')) {
    depth += bracket === '[' || bracket === '{' ? 1 : -1;
    deepest = Math.max(deepest, depth);
  }
  return deepest;
}

/** One check for each key that we act on; the rest may be anything. */
const checks: Record<string, (value: unknown, key: string) => void> = {
  max_msg_fds: (value, key) => wholeNumber(value, key, 0),
  max_data_xfer_size: (value, key) => wholeNumber(value, key, 1),
  max_dma_maps: (value, key) => wholeNumber(value, key, 0),
  // A full 64-bit mask is no safe integer, but a whole number all the same.
  pgsizes: (value, key) => wholeNumber(value, key, 1, 2 ** 64),
  write_multiple: (value, key) => {
    if (typeof value !== 'boolean') {
      wrongType(key, 'true or false', value);
    }
  },
  twin_socket: (value, key) => void objectOf(value, key),
  migration: (value, key) => void objectOf(value, key),
  sriov_hotplug: (value, key) => {
    const { version, role, program } = objectOf(value, key);
    wholeNumber(version, `${key}.version`, 1);
    if (program !== undefined && typeof program !== 'string') {
      wrongType(`${key}.program`, 'text', program);
    }
    if (role !== undefined && typeof role !== 'string') {
      wrongType(`${key}.role`, 'text', role);
    }
  },
  sriov_status: (value, key) => wholeNumber(objectOf(value, key).version, `${key}.version`, 1),
  region_changed: (value, key) => wholeNumber(objectOf(value, key).version, `${key}.version`, 1),
};

function wholeNumber(
  value: unknown,
  what: string,
  least: number,
  most: number = Number.MAX_SAFE_INTEGER,
): void {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most) {
    wrongType(what, `a whole number of at least ${least}`, value);
  }
}

function objectOf(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    wrongType(what, 'an object', value);
  }
  return value as Record<string, unknown>;
}

function wrongType(what: string, wanted: string, value: unknown): never {
  const shown = JSON.stringify(value) ?? 'absent';
  throw new WireError(
    'EINVAL',
    `${what} is ${shown.length > 40 ? `${shown.slice(0, 40)}...` : shown}: it must be ${wanted}`,
  );
}
