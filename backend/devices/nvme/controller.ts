// One NVMe controller: registers, doorbells, and the work on its queues. NVM Express 1.4, "Controller Registers" and
// "Controller Initialization". Commands themselves are admin-commands.ts and io-commands.ts.

import { loadUint } from '../../../protocol/little-endian.ts';
import type { RegisterBlock } from '../../pci/register-block.ts';
import { fieldOf } from '../../pci/registers.ts';
import type { FunctionModel, FunctionPort, RegisterWrite } from '../kit/declaration.ts';
import { type AdminTarget, executeAdmin } from './admin-commands.ts';
import { type Doorbell, doorbellAt } from './doorbells.ts';
import { AsynchronousEvents } from './events.ts';
import { Features } from './features.ts';
import { EVENT_REQUESTS } from './identify.ts';
import { executeIo, type IoCounts, type Steps } from './io-commands.ts';
import { ErrorLog } from './log-pages.ts';
import { QueueSet } from './queue-set.ts';
import {
  ADMIN_QUEUE,
  type CompletionQueue,
  LEAST_ENTRIES,
  type SubmissionQueue,
} from './queues.ts';
import { ShadowDoorbells } from './shadow-doorbells.ts';
import {
  COMPLETION_ENTRY_BYTES,
  COMPLETION_ENTRY_SHIFT,
  type Command,
  type Completion,
  decodeCommand,
  encodeCompletion,
  SUBMISSION_ENTRY_BYTES,
  SUBMISSION_ENTRY_SHIFT,
} from './spec/commands.ts';
import { AsynchronousEvent } from './spec/logs.ts';
import { CONTROLLER, DOORBELLS, ShutdownStatus } from './spec/registers.ts';
import { Status } from './spec/status.ts';
import type { SecondaryController, Subsystem } from './subsystem.ts';

export const STRIDE = 0;
export const LARGEST_PAGE = 4;
const SMALLEST_PAGE_BYTES = 4096;
/** Entries fetched at once, and data moved before another queue has its turn. */
const BURST = 8;
const BURST_BYTES = 128 * 1024;

export interface ControllerOptions {
  readonly subsystem: Subsystem;
  /** MSI-X vectors; there is one I/O queue pair less. */
  readonly vectors: number;
}

/** A command that is done in steps. */
interface Unfinished {
  readonly queue: SubmissionQueue;
  readonly command: Command;
  readonly steps: Steps;
}

/** What a controller has while it is enabled. */
interface Enabled {
  readonly queues: QueueSet;
  readonly admin: AdminTarget;
  readonly unfinished: Unfinished[];
  shadows: ShadowDoorbells | undefined;
  /** Submission queues that may have entries: those whose doorbell rang. */
  readonly active: Set<SubmissionQueue>;
}

type Write = RegisterWrite<typeof CONTROLLER>;

export class Controller implements FunctionModel, SecondaryController {
  readonly #port: FunctionPort;
  readonly #options: ControllerOptions;
  readonly #registers: RegisterBlock<typeof CONTROLLER>;
  readonly #features: Features;
  readonly #events = new AsynchronousEvents(EVENT_REQUESTS);
  readonly #errors = new ErrorLog();
  readonly #counts: IoCounts = { bytesRead: 0, bytesWritten: 0, reads: 0, writes: 0 };
  readonly #fetched = new Uint8Array(BURST * SUBMISSION_ENTRY_BYTES);
  readonly #entries = new DataView(this.#fetched.buffer);
  readonly #completion = new Uint8Array(COMPLETION_ENTRY_BYTES);
  #enabled: Enabled | undefined;
  #isOnline = true;
  #isWorking = false;

  constructor(port: FunctionPort, options: ControllerOptions) {
    this.#port = port;
    this.#options = options;
    this.#features = new Features(options.vectors - 1, options.vectors);
    this.#registers = port.block(CONTROLLER, { written: (write) => this.#written(write) });
    if (port.index >= 0) {
      this.#isOnline = options.subsystem.attach(port.index, this);
    }
    this.#showState();
  }

  readTrapped(_bar: number, _offset: number, into: Uint8Array): void {
    into.fill(0);
  }

  writeTrapped(_bar: number, offset: number, from: Uint8Array): void {
    for (let at = 0; at + 4 <= from.length; at += 4) {
      this.#ring(offset - DOORBELLS + at, loadUint(from, at, 2));
    }
  }

  reset(): void {
    this.#isWorking = false;
    this.#disable();
    this.#showState();
  }

  close(): void {
    this.#disable();
    if (this.#port.index >= 0) {
      this.#options.subsystem.detach(this.#port.index);
    }
  }

  setOnline(isOnline: boolean): void {
    this.#isOnline = isOnline;
    this.#disable();
    this.#registers.reset();
    this.#showState();
  }

  /** An offline controller shows no capabilities, and that it cannot be used. */
  #showState(): void {
    if (!this.#isOnline) {
      this.#registers.set('capabilitiesLow', 0);
      this.#registers.set('capabilitiesHigh', 0);
      this.#registers.setField('status', 'fatal', 1);
    }
  }

  #written({ register, before, after }: Write): void {
    if (!this.#isOnline) {
      return;
    }
    if (register === 'configuration') {
      this.#configured(before, after);
    } else if (register === 'interruptMaskSet') {
      this.#setMask(before | after);
    } else if (register === 'interruptMaskClear') {
      this.#setMask(before & ~after);
    }
  }

  #setMask(mask: number): void {
    this.#registers.set('interruptMaskSet', mask >>> 0);
    this.#registers.set('interruptMaskClear', mask >>> 0);
  }

  #configured(before: number, after: number): void {
    const was = fieldOf(CONTROLLER.configuration, 'enable', before);
    const is = fieldOf(CONTROLLER.configuration, 'enable', after);
    if (was === 0 && is === 1) {
      this.#enable();
    } else if (was === 1 && is === 0) {
      this.#disable();
      this.#registers.set('status', 0);
    }
    const shutsDown = fieldOf(CONTROLLER.configuration, 'shutdownNotification', after) !== 0;
    const status = shutsDown ? ShutdownStatus.complete : ShutdownStatus.normal;
    this.#registers.setField('status', 'shutdownStatus', status);
  }

  #enable(): void {
    const registers = this.#registers;
    const pageShift = registers.field('configuration', 'pageSize');
    const submissions = registers.field('adminQueueAttributes', 'submissionSize') + 1;
    const completions = registers.field('adminQueueAttributes', 'completionSize') + 1;
    const isUsable =
      pageShift <= LARGEST_PAGE &&
      registers.field('configuration', 'commandSet') === 0 &&
      registers.field('configuration', 'arbitration') === 0 &&
      Math.min(submissions, completions) >= LEAST_ENTRIES;
    if (!isUsable) {
      this.#fail('it was enabled with a configuration that it does not have');
      return;
    }
    const pageBytes = SMALLEST_PAGE_BYTES << pageShift;
    const queues = new QueueSet(this.#ioQueues, this.#options.vectors, pageBytes);
    queues.addAdmin(
      {
        base: this.#address('adminSubmissionLow', 'adminSubmissionHigh'),
        entries: submissions,
      },
      {
        base: this.#address('adminCompletionLow', 'adminCompletionHigh'),
        entries: completions,
      },
    );
    this.#enabled = {
      queues,
      admin: this.#adminTarget(queues, pageBytes),
      unfinished: [],
      shadows: undefined,
      active: new Set(),
    };
    registers.setField('status', 'ready', 1);
  }

  /** A VF has as many as it was given, the admin queue among them. */
  get #ioQueues(): number {
    const { subsystem, vectors } = this.#options;
    const given = subsystem.secondaries[this.#port.index]?.queues ?? vectors;
    return Math.min(given, vectors) - 1;
  }

  #disable(): void {
    this.#enabled = undefined;
    this.#features.reset();
    this.#events.reset();
  }

  /** Controller Fatal Status: nothing goes on until the host resets it. */
  #fail(why: string): void {
    this.#enabled = undefined;
    this.#registers.setField('status', 'fatal', 1);
    this.#port.log('warn', `controller fatal status: ${why}`);
  }

  #address(low: 'adminSubmissionLow' | 'adminCompletionLow', high: (typeof HIGH)[number]): bigint {
    return (BigInt(this.#registers.get(high)) << 32n) | BigInt(this.#registers.get(low));
  }

  #ring(offset: number, value: number): void {
    const enabled = this.#enabled;
    if (enabled === undefined) {
      return;
    }
    const doorbell = doorbellAt(offset, STRIDE);
    const { submissions, completions } = enabled.queues;
    const map = doorbell?.isCompletion === true ? completions : submissions;
    if (doorbell === undefined || !map.has(doorbell.queue)) {
      this.#events.happened(AsynchronousEvent.invalidDoorbell);
      this.#wake();
      return;
    }
    const rung = rungValue(enabled.shadows, doorbell, value);
    const isTaken = doorbell.isCompletion
      ? this.#completionsTaken(completions.get(doorbell.queue)!, rung)
      : this.#submitted(enabled, submissions.get(doorbell.queue)!, rung);
    if (!isTaken) {
      this.#events.happened(AsynchronousEvent.invalidDoorbellValue);
      this.#wake();
    }
  }

  #submitted(enabled: Enabled, queue: SubmissionQueue, tail: number): boolean {
    if (!queue.putUpTo(tail)) {
      return false;
    }
    enabled.active.add(queue);
    this.#wake();
    return true;
  }

  #completionsTaken(queue: CompletionQueue, head: number): boolean {
    const wasStopped = !queue.takesMore;
    if (!queue.takeUpTo(head)) {
      return false;
    }
    if (wasStopped) {
      this.#wake();
    }
    return true;
  }

  #wake(): void {
    if (!this.#isWorking) {
      this.#isWorking = true;
      this.#port.work(() => {
        this.#isWorking = this.#step();
        return this.#isWorking;
      });
    }
  }

  /** A bounded piece of work; whether there is more. */
  #step(): boolean {
    const enabled = this.#enabled;
    if (enabled === undefined) {
      return false;
    }
    for (const queue of enabled.queues.completions.values()) {
      this.#flush(enabled, queue);
    }
    this.#continueOne(enabled);
    this.#fetchFromNext(enabled);
    this.#tellEvents(enabled);
    this.#interrupt(enabled);
    return this.#enabled === enabled && (enabled.unfinished.length > 0 || this.#hasWork(enabled));
  }

  /** Puts what had to wait for room. */
  #flush(enabled: Enabled, queue: CompletionQueue): void {
    while (queue.waiting.length > 0 && !this.#isFull(enabled, queue)) {
      this.#put(queue, queue.waiting.shift()!);
    }
  }

  /** A host with shadow doorbells may have made room without a word; from here on it says so. */
  #isFull({ shadows }: Enabled, queue: CompletionQueue): boolean {
    if (!queue.isFull || shadows === undefined) {
      return queue.isFull;
    }
    const doorbell = { queue: queue.id, isCompletion: true };
    queue.takeUpTo(shadows.read(doorbell) ?? queue.head);
    if (queue.isFull) {
      shadows.setEvent(doorbell, queue.head);
      queue.takeUpTo(shadows.read(doorbell) ?? queue.head);
    }
    return queue.isFull;
  }

  #continueOne(enabled: Enabled): void {
    const next = enabled.unfinished.shift();
    if (next === undefined) {
      return;
    }
    const status = next.steps();
    if (status === undefined) {
      enabled.unfinished.push(next);
    } else {
      this.#complete(enabled, next.queue, next.command, status);
    }
  }

  /** Queues take turns: the one that was served goes to the end. */
  #fetchFromNext(enabled: Enabled): void {
    for (const queue of enabled.active) {
      if (this.#canFetch(enabled, queue)) {
        enabled.active.delete(queue);
        enabled.active.add(queue);
        this.#fetch(enabled, queue);
        return;
      }
    }
  }

  #canFetch(enabled: Enabled, queue: SubmissionQueue): boolean {
    const { completions } = queue;
    return (
      !queue.isEmpty && completions.waiting.length === 0 && !this.#isFull(enabled, completions)
    );
  }

  #fetch(enabled: Enabled, queue: SubmissionQueue): void {
    const { address, count } = queue.run(BURST);
    const entries = this.#fetched.subarray(0, count * SUBMISSION_ENTRY_BYTES);
    if (!this.#port.memory.read(address, entries)) {
      this.#fail(`submission queue ${queue.id} cannot be read`);
      return;
    }
    const before = this.#bytesMoved;
    for (let index = 0; index < count; index++) {
      const command = decodeCommand(this.#entries, index * SUBMISSION_ENTRY_BYTES);
      queue.take();
      this.#execute(enabled, queue, command);
      const isEnough = this.#bytesMoved - before >= BURST_BYTES;
      if (isEnough || this.#enabled !== enabled || !this.#canFetch(enabled, queue)) {
        return;
      }
    }
  }

  get #bytesMoved(): number {
    return this.#counts.bytesRead + this.#counts.bytesWritten;
  }

  #execute(enabled: Enabled, queue: SubmissionQueue, command: Command): void {
    if (queue.id === ADMIN_QUEUE) {
      const outcome = executeAdmin(command, enabled.admin);
      if (outcome !== undefined) {
        this.#complete(enabled, queue, command, outcome.status, outcome.result);
      }
      return;
    }
    const { memory, pageBytes } = enabled.admin.transfer;
    const storage = this.#options.subsystem.storageOf(this.#port.index);
    const outcome = executeIo(command, { memory, pageBytes, storage, counts: this.#counts });
    if (typeof outcome === 'number') {
      this.#complete(enabled, queue, command, outcome);
    } else {
      enabled.unfinished.push({ queue, command, steps: outcome });
    }
  }

  #complete(
    enabled: Enabled,
    queue: SubmissionQueue,
    command: Command,
    status: Status,
    result = 0,
  ): void {
    if (status !== Status.success) {
      this.#errors.add(queue.id, command, status);
    }
    this.#post(enabled, queue, command.identifier, status, result);
  }

  #post(
    enabled: Enabled,
    queue: SubmissionQueue,
    identifier: number,
    status: Status,
    result: number,
  ): void {
    const completion: Completion = {
      result,
      submissionHead: queue.head,
      submissionQueue: queue.id,
      identifier,
      status,
    };
    const { completions } = queue;
    if (completions.waiting.length > 0 || this.#isFull(enabled, completions)) {
      completions.waiting.push(completion);
    } else {
      this.#put(completions, completion);
    }
  }

  #put(queue: CompletionQueue, completion: Completion): void {
    const { address, phase } = queue.put();
    encodeCompletion(completion, phase, this.#completion);
    if (!this.#port.memory.write(address, this.#completion)) {
      this.#fail(`completion queue ${queue.id} cannot be written`);
    }
  }

  #tellEvents(enabled: Enabled): void {
    const admin = enabled.queues.submissions.get(ADMIN_QUEUE)!;
    for (let event = this.#events.next(); event !== undefined; event = this.#events.next()) {
      this.#post(enabled, admin, event.identifier, Status.success, event.result);
    }
  }

  #interrupt({ queues }: Enabled): void {
    for (const queue of queues.completions.values()) {
      if (queue.isNews) {
        queue.isNews = false;
        if (queue.vector !== undefined) {
          this.#port.raise(queue.vector);
        }
      }
    }
  }

  /** Whether a queue can be fetched from; one that is empty rings again before it is looked at. */
  #hasWork(enabled: Enabled): boolean {
    let isAny = false;
    for (const queue of enabled.active) {
      if (queue.isEmpty && enabled.shadows !== undefined) {
        lookAtShadow(enabled.shadows, queue);
      }
      if (queue.isEmpty) {
        enabled.active.delete(queue);
      } else {
        isAny ||= this.#canFetch(enabled, queue);
      }
    }
    return isAny;
  }

  #adminTarget(queues: QueueSet, pageBytes: number): AdminTarget {
    const { subsystem } = this.#options;
    const hasEntrySizes = (): boolean =>
      this.#registers.field('configuration', 'submissionEntrySize') === SUBMISSION_ENTRY_SHIFT &&
      this.#registers.field('configuration', 'completionEntrySize') === COMPLETION_ENTRY_SHIFT;
    return {
      transfer: { memory: this.#port.memory, pageBytes },
      source: { index: this.#port.index, subsystem },
      features: this.#features,
      errors: this.#errors,
      counts: this.#counts,
      get hasIoQueues() {
        return queues.hasIoQueues;
      },
      createSubmissionQueue: (command) =>
        hasEntrySizes() ? queues.createSubmission(command) : Status.invalidField,
      createCompletionQueue: (command) =>
        hasEntrySizes() ? queues.createCompletion(command) : Status.invalidField,
      deleteSubmissionQueue: (id) => this.#deleteSubmission(queues, id),
      deleteCompletionQueue: (id) => queues.deleteCompletion(id),
      abort: (queue, identifier) => this.#abort(queue, identifier),
      awaitEvent: (identifier) => this.#events.request(identifier),
      logRead: (identifier) => this.#events.logRead(identifier),
      setShadowDoorbells: (values, events) => {
        const shadows = new ShadowDoorbells(this.#port.memory, values, events, STRIDE);
        // What was rung before is not in them yet: read as rung, it would take stale entries for new ones.
        for (const { id, tail } of queues.submissions.values()) {
          shadows.mirror({ queue: id, isCompletion: false }, tail);
        }
        for (const { id, head } of queues.completions.values()) {
          shadows.mirror({ queue: id, isCompletion: true }, head);
        }
        this.#enabled!.shadows = shadows;
      },
    };
  }

  #deleteSubmission(queues: QueueSet, id: number): Status {
    const gone = queues.deleteSubmission(id);
    const enabled = this.#enabled;
    if (typeof gone === 'number' || enabled === undefined) {
      return typeof gone === 'number' ? gone : Status.success;
    }
    enabled.active.delete(gone);
    const { unfinished } = enabled;
    for (const each of unfinished.splice(0)) {
      if (each.queue === gone) {
        this.#complete(enabled, gone, each.command, Status.abortedByQueueDeletion);
      } else {
        unfinished.push(each);
      }
    }
    return Status.success;
  }

  /** Only what waits can be aborted: requests for events, and commands that are done in steps. */
  #abort(queueId: number, identifier: number): boolean {
    const enabled = this.#enabled;
    const queue = enabled?.queues.submissions.get(queueId);
    if (enabled === undefined || queue === undefined) {
      return false;
    }
    if (queueId === ADMIN_QUEUE && this.#events.abort(identifier)) {
      this.#post(enabled, queue, identifier, Status.abortRequested, 0);
      return true;
    }
    const at = enabled.unfinished.findIndex(
      (each) => each.queue === queue && each.command.identifier === identifier,
    );
    const [found] = at < 0 ? [] : enabled.unfinished.splice(at, 1);
    if (found !== undefined) {
      this.#complete(enabled, queue, found.command, Status.abortRequested);
    }
    return found !== undefined;
  }
}

const HIGH = ['adminSubmissionHigh', 'adminCompletionHigh'] as const;

/**
 * With shadow doorbells a write of a register says only that there is something: the host may have gone on meanwhile,
 * and what it wrote here be older than what was seen there.
 */
function rungValue(
  shadows: ShadowDoorbells | undefined,
  doorbell: Doorbell,
  written: number,
): number {
  if (doorbell.queue === ADMIN_QUEUE) {
    shadows?.mirror(doorbell, written);
    return written;
  }
  return shadows?.read(doorbell) ?? written;
}

/** The host is told to ring when it goes past what was seen; what it put meanwhile is seen at the second look. */
function lookAtShadow(shadows: ShadowDoorbells, queue: SubmissionQueue): void {
  const doorbell: Doorbell = { queue: queue.id, isCompletion: false };
  queue.putUpTo(shadows.read(doorbell) ?? queue.tail);
  if (queue.isEmpty) {
    shadows.setEvent(doorbell, queue.tail);
    queue.putUpTo(shadows.read(doorbell) ?? queue.tail);
  }
}
