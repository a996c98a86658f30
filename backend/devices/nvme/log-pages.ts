// Log pages, from what a controller counted. Pure.

import type { Features } from './features.ts';
import { ERROR_LOG_ENTRIES, FIRMWARE_REVISION, Temperature } from './identify.ts';
import type { IoCounts } from './io-commands.ts';
import { ADMIN_QUEUE } from './queues.ts';
import { AdminOpcode, type Command, IoOpcode } from './spec/commands.ts';
import {
  ADMIN_EFFECTS,
  COMMAND_EFFECTS_BYTES,
  CriticalWarning,
  Effect,
  ERROR_ENTRY,
  FIRMWARE_SLOTS,
  IO_EFFECTS,
  LogPage,
  SMART,
} from './spec/logs.ts';
import { type Status, statusField } from './spec/status.ts';

const DATA_UNIT = 512_000;
const CHANGES_BLOCKS: ReadonlySet<number> = new Set([
  IoOpcode.write,
  IoOpcode.writeZeroes,
  IoOpcode.datasetManagement,
]);

/** Commands whose dwords 10 and 11 are their first block. */
const WITH_BLOCKS: ReadonlySet<number> = new Set([
  IoOpcode.read,
  IoOpcode.write,
  IoOpcode.compare,
  IoOpcode.writeZeroes,
]);

/** The commands that failed last, newest first. */
export class ErrorLog {
  #count = 0;
  readonly #entries: Uint8Array[] = [];

  get count(): number {
    return this.#count;
  }

  add(submissionQueue: number, command: Command, status: Status): void {
    this.#count++;
    this.#entries.unshift(
      ERROR_ENTRY.encode({
        count: BigInt(this.#count),
        submissionQueue,
        command: command.identifier,
        status: statusField(status),
        parameterLocation: 0xffff,
        firstBlock: firstBlockOf(submissionQueue, command),
        namespaceId: command.namespaceId,
      }),
    );
    this.#entries.length = Math.min(this.#entries.length, ERROR_LOG_ENTRIES);
  }

  encode(): Uint8Array {
    const page = new Uint8Array(ERROR_LOG_ENTRIES * ERROR_ENTRY.size);
    for (const [position, entry] of this.#entries.entries()) {
      page.set(entry, position * ERROR_ENTRY.size);
    }
    return page;
  }
}

/** 0 of a command that is about no blocks. */
function firstBlockOf(submissionQueue: number, { opcode, dword10, dword11 }: Command): bigint {
  const isOfBlocks = submissionQueue !== ADMIN_QUEUE && WITH_BLOCKS.has(opcode);
  return isOfBlocks ? (BigInt(dword11) << 32n) | BigInt(dword10) : 0n;
}

/** What a controller's pages are about. */
export interface LogSource {
  readonly errors: ErrorLog;
  readonly counts: IoCounts;
  readonly features: Pick<Features, 'isTemperatureBeyond'>;
  readonly isPrimary: boolean;
}

/** The whole page; undefined where there is none of this identifier. */
export function logPage(
  identifier: number,
  { errors, counts, features, isPrimary }: LogSource,
): Uint8Array | undefined {
  switch (identifier) {
    case LogPage.errors:
      return errors.encode();
    case LogPage.smart:
      return SMART.encode({
        criticalWarning: features.isTemperatureBeyond ? CriticalWarning.temperature : 0,
        temperature: Temperature.now,
        spare: 100,
        spareThreshold: 10,
        dataUnitsRead: BigInt(Math.ceil(counts.bytesRead / DATA_UNIT)),
        dataUnitsWritten: BigInt(Math.ceil(counts.bytesWritten / DATA_UNIT)),
        readCommands: BigInt(counts.reads),
        writeCommands: BigInt(counts.writes),
        powerCycles: 1n,
        errorLogEntries: BigInt(errors.count),
      });
    case LogPage.firmware:
      return FIRMWARE_SLOTS.encode({ active: 1, slot1: FIRMWARE_REVISION });
    case LogPage.changedNamespaces:
      return new Uint8Array(4096);
    case LogPage.commandEffects:
      return commandEffects(isPrimary);
    default:
      return undefined;
  }
}

function commandEffects(isPrimary: boolean): Uint8Array {
  const page = new Uint8Array(COMMAND_EFFECTS_BYTES);
  for (const opcode of Object.values(AdminOpcode)) {
    if (isPrimary || opcode !== AdminOpcode.virtualizationManagement) {
      page[ADMIN_EFFECTS + 4 * opcode] = Effect.supported;
    }
  }
  for (const opcode of Object.values(IoOpcode)) {
    const changes = CHANGES_BLOCKS.has(opcode) ? Effect.changesBlocks : 0;
    page[IO_EFFECTS + 4 * opcode] = Effect.supported | changes;
  }
  return page;
}
