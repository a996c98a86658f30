// Where a function sits: domain:bus:device.function as people write it and sysfs names it.

/** A PCI address; `fn` is the function number. */
export interface Bdf {
  readonly domain: number;
  readonly bus: number;
  readonly device: number;
  readonly fn: number;
}

const PATTERN =
  /^(?:(?<domain>[0-9a-f]{4,8}):)?(?<bus>[0-9a-f]{2}):(?<device>[01][0-9a-f])\.(?<fn>[0-7])$/i;

/** Reads `0000:01:00.0`, or `01:00.0` in domain 0; anything else throws a RangeError that says what to write. */
export function parseBdf(text: string): Bdf {
  const parts = PATTERN.exec(text)?.groups;
  if (parts === undefined) {
    throw new RangeError(
      `PCI address '${text}' is not domain:bus:device.function; write it as 'lspci -D' does, such as 0000:01:00.0`,
    );
  }
  return {
    domain: Number.parseInt(parts.domain ?? '0', 16),
    bus: Number.parseInt(parts.bus!, 16),
    device: Number.parseInt(parts.device!, 16),
    fn: Number(parts.fn),
  };
}

/** As sysfs names it: `0000:01:00.0`. */
export function formatBdf(bdf: Bdf): string {
  return `${hex(bdf.domain, 4)}:${hex(bdf.bus, 2)}:${hex(bdf.device, 2)}.${bdf.fn}`;
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
