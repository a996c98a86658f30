// Walks a function's capability lists as a guest's kernel does, with a bound where a broken device has a loop.

import type { ConfigAccess } from './config-access.ts';
import { CONFIG_SIZE, EXTENDED_START, Header } from './pci-offsets.ts';

/** Capability id to the offset where it was first found. */
export interface Capabilities {
  readonly standard: ReadonlyMap<number, number>;
  readonly extended: ReadonlyMap<number, number>;
}

const STATUS_HAS_CAPABILITIES = 0x10;
/** As many as fit: a longer chain is a loop. */
const MAX_STANDARD = 48;
const MAX_EXTENDED = (CONFIG_SIZE - EXTENDED_START) / 8;

/** Both lists; empty where there is none. */
export async function findCapabilities(config: ConfigAccess): Promise<Capabilities> {
  return { standard: await walkStandard(config), extended: await walkExtended(config) };
}

async function walkStandard(config: ConfigAccess): Promise<Map<number, number>> {
  const found = new Map<number, number>();
  if (((await config.read(Header.status, 2)) & STATUS_HAS_CAPABILITIES) === 0) {
    return found;
  }
  let offset = (await config.read(Header.capabilitiesPointer, 1)) & ~0x3;
  for (let i = 0; i < MAX_STANDARD && offset >= 0x40; i += 1) {
    const entry = await config.read(offset, 2);
    const id = entry & 0xff;
    if (id === 0xff) {
      break;
    }
    if (!found.has(id)) {
      found.set(id, offset);
    }
    offset = (entry >>> 8) & ~0x3;
  }
  return found;
}

async function walkExtended(config: ConfigAccess): Promise<Map<number, number>> {
  const found = new Map<number, number>();
  let offset: number = EXTENDED_START;
  for (let i = 0; i < MAX_EXTENDED && offset >= EXTENDED_START; i += 1) {
    const header = await config.read(offset, 4);
    if (header === 0 || header === 0xffffffff) {
      break;
    }
    const id = header & 0xffff;
    if (id !== 0 && !found.has(id)) {
      found.set(id, offset);
    }
    offset = (header >>> 20) & ~0x3;
  }
  return found;
}
