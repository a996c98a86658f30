// What a trace says of the device that it was taken of, so that it can be read anywhere: the config spaces to name
// accesses by, the registers of the BARs as the device declares them, what was mapped and so unseen.

/** A register as backend/pci/registers.ts declares it. */
export interface TracedRegister {
  readonly offset: number;
  readonly bytes: 1 | 2 | 4;
  readonly rw: number;
  readonly rw1c: number;
  readonly fields: Readonly<
    Record<
      string,
      { readonly high: number; readonly low: number; readonly access: 'ro' | 'rw' | 'rw1c' }
    >
  >;
}

/** Registers of one BAR, from `offset` in it on. */
export interface TracedTable {
  readonly region: number;
  readonly title: string;
  readonly offset: number;
  readonly table: Readonly<Record<string, TracedRegister>>;
  /** What registers are called where their names in the table don't say it. */
  readonly names?: Readonly<Record<string, string>>;
}

export interface TracedFunction {
  /** Config space as the guest finds it, base64. */
  readonly config: string;
  readonly regions: readonly { readonly index: number; readonly size: number }[];
  /** Regions of which a part may be mapped. */
  readonly mappable: readonly number[];
  readonly tables: readonly TracedTable[];
}

export interface TraceDescription {
  /** What a person calls it: `0000:01:00.0`, `loopback`. */
  readonly device: string;
  readonly totalVfs: number;
  /** Recorded from the backend's start on: what `vf` says of config space held at the first event. */
  readonly isFromStart: boolean;
  readonly pf: TracedFunction;
  readonly vf: TracedFunction;
}

/** What JSON from a file says of a device; undefined where it is no description. */
export function parseDescription(text: string): TraceDescription | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const isSound =
    isObject(value) &&
    typeof value.device === 'string' &&
    isCount(value.totalVfs) &&
    typeof value.isFromStart === 'boolean' &&
    isFunction(value.pf) &&
    isFunction(value.vf);
  return isSound ? (value as unknown as TraceDescription) : undefined;
}

const CONFIG_BYTES: readonly number[] = [256, 4096];

function isFunction(value: unknown): boolean {
  return (
    isObject(value) &&
    typeof value.config === 'string' &&
    CONFIG_BYTES.includes(Buffer.from(value.config, 'base64').length) &&
    isListOf(
      value.regions,
      (each) => isObject(each) && isCount(each.index) && isCount(each.size),
    ) &&
    isListOf(value.mappable, isCount) &&
    isListOf(value.tables, isTable)
  );
}

function isTable(value: unknown): boolean {
  return (
    isObject(value) &&
    isCount(value.region) &&
    typeof value.title === 'string' &&
    isCount(value.offset) &&
    isRecordOf(value.table, isRegister) &&
    (value.names === undefined || isRecordOf(value.names, (name) => typeof name === 'string'))
  );
}

function isRegister(value: unknown): boolean {
  return (
    isObject(value) &&
    isCount(value.offset) &&
    [1, 2, 4].includes(value.bytes as number) &&
    Number.isInteger(value.rw) &&
    Number.isInteger(value.rw1c) &&
    isRecordOf(value.fields, isField)
  );
}

function isField(value: unknown): boolean {
  return (
    isObject(value) &&
    isBit(value.high) &&
    isBit(value.low) &&
    ['ro', 'rw', 'rw1c'].includes(value.access as string)
  );
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isListOf(value: unknown, isOne: (each: unknown) => boolean): boolean {
  return Array.isArray(value) && value.every(isOne);
}

function isRecordOf(value: unknown, isOne: (each: unknown) => boolean): boolean {
  return isObject(value) && Object.values(value).every(isOne);
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isBit(value: unknown): boolean {
  return isCount(value) && (value as number) < 32;
}
