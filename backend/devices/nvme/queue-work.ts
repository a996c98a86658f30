// The work on the queues of a controller that is enabled: takes what the host put into them, a bounded piece at a time, and
// has it carried out. One object from enable to disable; commands themselves are admin-commands.ts and io-commands.ts.

import { PF_INDEX } from '../../device/physical-device.ts';
import type { FunctionPort } from '../kit/declaration.ts';
import { ActiveQueues } from './active-queues.ts';
import { type AdminTarget, executeAdmin } from './admin-commands.ts';
import type { CommandFault } from './command-fault.ts';
import { Completions } from './completions.ts';
import { type Doorbell, doorbellAt, STRIDE } from './doorbells.ts';
import type { AsynchronousEvents } from './events.ts';
import type { Features } from './features.ts';
import { executeIo, type IoCounts, PIECE_BYTES } from './io-commands.ts';
import type { ErrorLog } from './log-pages.ts';
import type { QueueSet } from './queue-set.ts';
import { ADMIN_QUEUE, type CompletionQueue, type SubmissionQueue } from './queues.ts';
import { ShadowDoorbells } from './shadow-doorbells.ts';
import { type Command, decodeCommand, SUBMISSION_ENTRY_BYTES } from './spec/commands.ts';
import { AsynchronousEvent } from './spec/logs.ts';
import { Status } from './spec/status.ts';
import type { Subsystem } from './subsystem.ts';
import { UnfinishedCommands } from './unfinished-commands.ts';

/** Entries fetched at once, and data moved before another queue has its turn. */
const BURST = 8;
const BURST_BYTES = PIECE_BYTES;

export interface QueueWorkOptions {
  readonly port: FunctionPort;
  readonly subsystem: Subsystem;
  readonly queues: QueueSet;
  readonly pageBytes: number;
  readonly features: Features;
  readonly events: AsynchronousEvents;
  readonly errors: ErrorLog;
  readonly counts: IoCounts;
  /** Whether the host has said how large queue entries are, as they must be before it makes I/O queues. */
  hasEntrySizes(): boolean;
  /** What goes wrong with a command on purpose. */
  fault(command: Command, isAdmin: boolean): CommandFault | undefined;
  /** There is something to do: `step` is to be called. */
  wake(): void;
  /** Nothing goes on: what the host gave cannot be reached. */
  fail(why: string): void;
}

export class QueueWork {
  readonly #options: QueueWorkOptions;
  readonly #admin: AdminTarget;
  readonly #completions: Completions;
  readonly #unfinished: UnfinishedCommands;
  readonly #active = new ActiveQueues();
  readonly #canFetch = (queue: SubmissionQueue): boolean => {
    const hasToWait = queue.id !== ADMIN_QUEUE && this.#unfinished.areMany;
    return !queue.isEmpty && !hasToWait && this.#completions.hasRoom(queue.completions);
  };
  readonly #stays = (queue: SubmissionQueue): boolean => {
    if (queue.isEmpty && this.#shadows !== undefined) {
      lookAtShadow(this.#shadows, queue);
    }
    return !queue.isEmpty;
  };
  readonly #fetched = new Uint8Array(BURST * SUBMISSION_ENTRY_BYTES);
  readonly #entries = new DataView(this.#fetched.buffer);
  #isStopped = false;

  constructor(options: QueueWorkOptions) {
    this.#options = options;
    this.#admin = this.#adminTarget(options);
    this.#completions = new Completions(options.port, options.queues, options.fail);
    this.#unfinished = new UnfinishedCommands({
      complete: (queue, command, status) => this.#complete(queue, command, status),
      wake: () => options.wake(),
    });
  }

  get #shadows(): ShadowDoorbells | undefined {
    return this.#completions.shadows;
  }

  /** The controller is disabled, or has failed. */
  stop(): void {
    this.#isStopped = true;
    this.#unfinished.stop();
  }

  /** The host writes a doorbell, at an offset from the first. */
  ring(offset: number, value: number): void {
    const doorbell = doorbellAt(offset, STRIDE);
    const { submissions, completions } = this.#options.queues;
    const map = doorbell?.isCompletion === true ? completions : submissions;
    if (doorbell === undefined || !map.has(doorbell.queue)) {
      this.#options.events.happened(AsynchronousEvent.invalidDoorbell);
      this.#options.wake();
      return;
    }
    const rung = rungValue(this.#shadows, doorbell, value);
    const isTaken = doorbell.isCompletion
      ? this.#completionsTaken(completions.get(doorbell.queue)!, rung)
      : this.#submitted(submissions.get(doorbell.queue)!, rung);
    if (!isTaken) {
      this.#options.events.happened(AsynchronousEvent.invalidDoorbellValue);
      this.#options.wake();
    }
  }

  #submitted(queue: SubmissionQueue, tail: number): boolean {
    if (!queue.putUpTo(tail)) {
      return false;
    }
    this.#active.add(queue);
    this.#options.wake();
    return true;
  }

  #completionsTaken(queue: CompletionQueue, head: number): boolean {
    const wasStopped = !queue.takesMore;
    if (!queue.takeUpTo(head)) {
      return false;
    }
    if (wasStopped) {
      this.#options.wake();
    }
    return true;
  }

  /** A bounded piece of work: something old, and of what is new one command, or more until time `isOver`; whether there is more. */
  step(isOver: () => boolean): boolean {
    this.#completions.flush();
    this.#unfinished.step();
    this.#fetchFromNext(isOver);
    this.#tellEvents();
    this.#completions.interrupt();
    return !this.#isStopped && (this.#unfinished.hasSteps || this.#hasWork());
  }

  #fetchFromNext(isOver: () => boolean): void {
    const queue = this.#active.next(this.#canFetch);
    if (queue !== undefined) {
      this.#fetch(queue, isOver);
    }
  }

  #fetch(queue: SubmissionQueue, isOver: () => boolean): void {
    const { address, count } = queue.run(BURST);
    const entries = this.#fetched.subarray(0, count * SUBMISSION_ENTRY_BYTES);
    if (!this.#options.port.memory.read(address, entries)) {
      this.#options.fail(`submission queue ${queue.id} cannot be read`);
      return;
    }
    const before = this.#bytesMoved;
    for (let index = 0; index < count; index++) {
      const command = decodeCommand(this.#entries, index * SUBMISSION_ENTRY_BYTES);
      queue.take();
      this.#execute(queue, command);
      const isEnough = this.#bytesMoved - before >= BURST_BYTES;
      if (isEnough || this.#isStopped || !this.#canFetch(queue) || isOver()) {
        return;
      }
    }
  }

  get #bytesMoved(): number {
    return this.#options.counts.bytesRead + this.#options.counts.bytesWritten;
  }

  #execute(queue: SubmissionQueue, command: Command): void {
    const fault = this.#options.fault(command, queue.id === ADMIN_QUEUE);
    if (fault !== undefined) {
      this.#spoil(queue, command, fault);
      return;
    }
    if (queue.id === ADMIN_QUEUE) {
      const outcome = executeAdmin(command, this.#admin);
      if (outcome !== undefined) {
        this.#complete(queue, command, outcome.status, outcome.result);
      }
      return;
    }
    const { port, subsystem, pageBytes, counts, features } = this.#options;
    const storage = subsystem.storageOf(port.index);
    const { writesThrough } = features;
    const { memory } = port;
    const begun = executeIo(command, { memory, pageBytes, storage, counts, writesThrough });
    this.#unfinished.add(queue, command, begun);
  }

  #spoil(queue: SubmissionQueue, command: Command, fault: CommandFault): void {
    if (fault.kind === 'fatal') {
      this.#options.fail(`the fault ${fault.rule} was asked for`);
    } else if (fault.kind === 'status') {
      this.#complete(queue, command, fault.status);
    }
  }

  #complete(queue: SubmissionQueue, command: Command, status: Status, result = 0): void {
    if (status !== Status.success) {
      this.#options.errors.add(queue.id, command, status);
    }
    this.#completions.post(queue, command.identifier, status, result);
  }

  #tellEvents(): void {
    const { events, queues } = this.#options;
    const admin = queues.submissions.get(ADMIN_QUEUE)!;
    for (let event = events.next(); event !== undefined; event = events.next()) {
      this.#completions.post(admin, event.identifier, Status.success, event.result);
    }
  }

  /** Whether a queue can be fetched from; one that is empty rings again before it is looked at. */
  #hasWork(): boolean {
    this.#active.keep(this.#stays);
    return this.#active.some(this.#canFetch);
  }

  #adminTarget({ queues, port, subsystem, pageBytes, ...options }: QueueWorkOptions): AdminTarget {
    const { features, events, errors, counts, hasEntrySizes } = options;
    return {
      transfer: { memory: port.memory, pageBytes },
      source: { index: port.index, subsystem },
      isPrimary: port.index === PF_INDEX,
      features,
      errors,
      counts,
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
      awaitEvent: (identifier) => events.request(identifier),
      happened: (event) => events.happened(event),
      logRead: (identifier) => events.logRead(identifier),
      setShadowDoorbells: (values, eventIndexes) => {
        const shadows = new ShadowDoorbells(port.memory, values, eventIndexes, STRIDE);
        // What was rung before is not in them yet: read as rung, it would take stale entries for new ones.
        for (const { id, tail } of queues.submissions.values()) {
          shadows.mirror({ queue: id, isCompletion: false }, tail);
        }
        for (const { id, head } of queues.completions.values()) {
          shadows.mirror({ queue: id, isCompletion: true }, head);
        }
        this.#completions.shadows = shadows;
      },
    };
  }

  #deleteSubmission(queues: QueueSet, id: number): Status {
    const gone = queues.deleteSubmission(id);
    if (typeof gone === 'number') {
      return gone;
    }
    this.#active.delete(gone);
    this.#unfinished.endWith(gone);
    return Status.success;
  }

  /** Only what waits can be aborted: requests for events, and commands that are not over yet. */
  #abort(queueId: number, identifier: number): boolean {
    const { queues, events } = this.#options;
    const queue = queues.submissions.get(queueId);
    if (queue === undefined) {
      return false;
    }
    if (queueId === ADMIN_QUEUE && events.abort(identifier)) {
      this.#completions.post(queue, identifier, Status.abortRequested, 0);
      return true;
    }
    return this.#unfinished.abort(queue, identifier);
  }
}

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
