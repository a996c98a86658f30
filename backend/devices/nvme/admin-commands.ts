// The admin command set. NVM Express 1.4, "Admin Command Set". Each command is a function of the entry and the
// controller's parts; what changes the controller's queues goes through `AdminTarget`.

import { PF_INDEX } from '../../device/physical-device.ts';
import type { Features } from './features.ts';
import { type IdentifySource, identify } from './identify.ts';
import { ALL_NAMESPACES, MOST_TRANSFER_BYTES } from './io-commands.ts';
import { type LogSource, logPage } from './log-pages.ts';
import { AdminOpcode, type Command } from './spec/commands.ts';
import { AsynchronousEvent } from './spec/logs.ts';
import { Status } from './spec/status.ts';
import { type Transfer, toHost } from './transfer.ts';

/** A completion: its status and Dword 0; undefined where it comes later. */
export type Outcome = { readonly status: Status; readonly result: number } | undefined;

/** What admin commands change. */
export interface AdminTarget extends LogSource {
  readonly transfer: Transfer;
  readonly source: IdentifySource;
  readonly features: Features;
  readonly hasIoQueues: boolean;
  createSubmissionQueue(command: Command): Status;
  createCompletionQueue(command: Command): Status;
  deleteSubmissionQueue(id: number): Status;
  deleteCompletionQueue(id: number): Status;
  /** False where no such command waits. */
  abort(submissionQueue: number, identifier: number): boolean;
  /** False where too many wait. */
  awaitEvent(identifier: number): boolean;
  /** Something that the host may have asked to be told of. */
  happened(event: AsynchronousEvent): void;
  /** The host has read a log page: events about it may be told again. */
  logRead(identifier: number): void;
  setShadowDoorbells(values: bigint, events: bigint): void;
}

const NOT_ABORTED = 1;
const RETAIN_EVENT = 1 << 15;

const ended = (status: Status, result = 0): Outcome => ({ status, result });

export function executeAdmin(command: Command, target: AdminTarget): Outcome {
  if (command.fused !== 0 || command.dataTransfer !== 0) {
    return ended(Status.invalidField);
  }
  const queue = command.dword10 & 0xffff;
  switch (command.opcode) {
    case AdminOpcode.deleteSubmissionQueue:
      return ended(target.deleteSubmissionQueue(queue));
    case AdminOpcode.createSubmissionQueue:
      return ended(target.createSubmissionQueue(command));
    case AdminOpcode.getLogPage:
      return ended(getLogPage(command, target));
    case AdminOpcode.deleteCompletionQueue:
      return ended(target.deleteCompletionQueue(queue));
    case AdminOpcode.createCompletionQueue:
      return ended(target.createCompletionQueue(command));
    case AdminOpcode.identify:
      return ended(identifyTo(command, target));
    case AdminOpcode.abort:
      return ended(Status.success, target.abort(queue, command.dword10 >>> 16) ? 0 : NOT_ABORTED);
    case AdminOpcode.setFeatures:
      return setFeatures(command, target);
    case AdminOpcode.getFeatures:
      return target.features.get(command);
    case AdminOpcode.asynchronousEventRequest:
      return target.awaitEvent(command.identifier)
        ? undefined
        : ended(Status.asynchronousEventRequestLimit);
    case AdminOpcode.virtualizationManagement:
      return manageVirtualization(command, target);
    case AdminOpcode.doorbellBufferConfig:
      return ended(configureDoorbells(command, target));
    default:
      return ended(Status.invalidOpcode);
  }
}

function identifyTo(command: Command, { source, transfer }: AdminTarget): Status {
  const found = identify(command, source);
  return typeof found === 'number' ? found : toHost(command, found, transfer);
}

/** A temperature that is beyond a threshold now, and was not, or was not to be told of, is an event. */
function setFeatures(command: Command, target: AdminTarget): Outcome {
  const { features } = target;
  const wasTold = features.tellsOfTemperature;
  const answer = features.set(command, target.hasIoQueues);
  if (features.tellsOfTemperature && !wasTold) {
    target.happened(AsynchronousEvent.temperatureThreshold);
  }
  return answer;
}

/** Dwords 10 and 11 have the length in dwords, 0's based; 12 and 13 the offset in bytes. */
function getLogPage(command: Command, target: AdminTarget): Status {
  const { namespaceId, dword10, dword11, dword12, dword13 } = command;
  const identifier = dword10 & 0xff;
  const page = logPage(identifier, target);
  if (page === undefined) {
    return Status.invalidLogPage;
  }
  // Each page is the whole controller's.
  if (namespaceId !== 0 && namespaceId !== ALL_NAMESPACES) {
    return Status.invalidField;
  }
  const dwords = (dword11 & 0xffff) * 0x1_0000 + (dword10 >>> 16) + 1;
  const offset = dword13 * 2 ** 32 + dword12;
  if (offset % 4 !== 0 || offset > page.length || dwords * 4 > MOST_TRANSFER_BYTES) {
    return Status.invalidField;
  }
  const wanted = new Uint8Array(dwords * 4);
  wanted.set(page.subarray(offset, offset + wanted.length));
  const status = toHost(command, wanted, target.transfer);
  if (status === Status.success && (dword10 & RETAIN_EVENT) === 0) {
    target.logRead(identifier);
  }
  return status;
}

/** Dword 10: ACT in bits 3:0, RT in 10:8, CNTLID in 31:16; Dword 11 is NR. */
function manageVirtualization({ dword10, dword11 }: Command, { source }: AdminTarget): Outcome {
  if (source.index !== PF_INDEX) {
    return ended(Status.invalidOpcode);
  }
  const { status, modified } = source.subsystem.manage(
    dword10 & 0xf,
    (dword10 >>> 8) & 0x7,
    dword10 >>> 16,
    dword11 & 0xffff,
  );
  return ended(status, modified);
}

function configureDoorbells({ prp1, prp2 }: Command, target: AdminTarget): Status {
  const inPage = BigInt(target.transfer.pageBytes - 1);
  if (((prp1 | prp2) & inPage) !== 0n) {
    return Status.invalidField;
  }
  target.setShadowDoorbells(prp1, prp2);
  return Status.success;
}
