// What QEMU's answers must look like, by its QAPI schema, as readers: nothing of what comes over QMP is used unread. Pure.

/** Gives the value, or undefined where it is not of that shape. */
export type Reader<T> = (value: unknown) => T | undefined;

/** QEMU's names, paths and words; whatever is longer is not one. */
const MAX_TEXT_CHARACTERS = 64 * 1024;
/** No list that is asked for has so many; a PCI domain has 65,536 functions. */
const MAX_ITEMS = 65_536;

export const text: Reader<string> = (value) =>
  typeof value === 'string' && value.length <= MAX_TEXT_CHARACTERS ? value : undefined;

export const flag: Reader<boolean> = (value) => (typeof value === 'boolean' ? value : undefined);

export const whole: Reader<number> = (value) =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : undefined;

/** A bus address; -1 where a BAR is not mapped, 2^64 - 1 where config space is not. */
export const address: Reader<number> = (value) =>
  typeof value === 'number' && Number.isFinite(value) ? value : undefined;

/** Every item must be of that shape. */
export function listOf<T>(item: Reader<T>): Reader<T[]> {
  return (value) => {
    if (!Array.isArray(value) || value.length > MAX_ITEMS) {
      return undefined;
    }
    const items = value.map(item);
    return items.some((each) => each === undefined) ? undefined : (items as T[]);
  };
}

/** A member that may be missing or null. */
export function optional<T>(member: Reader<T>): Reader<T | null> {
  return (value) => (value === undefined || value === null ? null : member(value));
}

type Members<R extends Record<string, Reader<unknown>>> = {
  readonly [K in keyof R]: R[K] extends Reader<infer T> ? T : never;
};

/** An object with these members, and others that nobody looks at. */
export function object<R extends Record<string, Reader<unknown>>>(readers: R): Reader<Members<R>> {
  return (value) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      return undefined;
    }
    const given = value as Record<string, unknown>;
    const found = Object.entries(readers).map(([key, reader]) => [
      key,
      reader(Object.hasOwn(given, key) ? given[key] : undefined),
    ]);
    return found.some(([, member]) => member === undefined)
      ? undefined
      : (Object.fromEntries(found) as Members<R>);
  };
}

const readRunState = object({ status: text, running: flag });

/**
 * Of `query-status`. A guest that is suspended to RAM counts as running: QEMU (11.1) stops and resumes it like any other, and
 * tells nothing of the kind when it wakes.
 */
export const runState: Reader<{ readonly status: string; readonly running: boolean }> = (value) => {
  const state = readRunState(value);
  return state && { ...state, running: state.running || state.status === 'suspended' };
};

/** Of `query-target`: of a QEMU for this processor. */
export const target = object({ arch: text });

/** Of `qom-list`. */
export const qomProperties = listOf(object({ name: text, type: text }));

/** Of the event MIGRATION. */
export const migrationStatus = object({ status: text });

/** Of `query-memdev`; `id` is missing for a backend without one. */
export const memoryBackends = listOf(object({ id: optional(text), size: whole, share: flag }));

/** A device of `query-pci`. */
export interface PciDevice {
  readonly bus: number;
  readonly slot: number;
  readonly function: number;
  /** Its -device's; empty where it has none. */
  readonly qdev_id: string | null;
  /** Its BARs. */
  readonly regions: readonly { readonly address: number; readonly size: number }[] | null;
  readonly pci_bridge: {
    readonly bus: { readonly secondary: number };
    readonly devices: readonly PciDevice[] | null;
  } | null;
}

/** Bridges behind bridges: PCI numbers 256 buses. */
const MAX_BRIDGES = 256;

function pciDevice(depth: number): Reader<PciDevice> {
  return (value) =>
    depth > MAX_BRIDGES
      ? undefined
      : object({
          bus: whole,
          slot: whole,
          function: whole,
          qdev_id: optional(text),
          regions: optional(listOf(object({ address, size: whole }))),
          pci_bridge: optional(
            object({
              bus: object({ secondary: whole }),
              devices: optional(listOf(pciDevice(depth + 1))),
            }),
          ),
        })(value);
}

/** Of `query-pci`. */
export const pciBuses = listOf(object({ devices: optional(listOf(pciDevice(0))) }));
