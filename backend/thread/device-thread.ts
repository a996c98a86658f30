// The main thread's side of the device thread: starts the worker, does for it what takes long, carries its log lines,
// and ends it.

import { setFlagsFromString } from 'node:v8';
import { Worker } from 'node:worker_threads';
import type { Clock, Timer } from '../../protocol/clock.ts';
import { Errno } from '../../protocol/errno.ts';
import { situationIn } from '../../protocol/explained-error.ts';
import type { SriovPhase } from '../../protocol/hotplug/status.ts';
import type { Log } from '../../protocol/log.ts';
import { createEventFd, signalEventFd } from '../../protocol/unix/eventfd.ts';
import { stacksOfThreads } from '../../protocol/unix/thread-stacks.ts';
import { UserError } from '../../protocol/user-error.ts';
import {
  type DeviceDescription,
  HostError,
  PF_INDEX,
  type PhysicalDevice,
  perform,
} from '../device/physical-device.ts';
import type { Measurement } from '../metrics/measurement.ts';
import { PeerFileCloser } from './peer-file-closer.ts';
import type {
  DeviceThreadOptions,
  HostFailure,
  ToDeviceThread,
  ToMainThread,
} from './thread-messages.ts';
import { giveUp, makeTurnCount, type TurnCount, watchTurns } from './watchdog.ts';

export interface StartOptions
  extends Omit<DeviceThreadOptions, 'description' | 'pf' | 'wakeFd' | 'turnCount' | 'tellsPhases'> {
  readonly device: PhysicalDevice;
  /** A turn of the device thread that does not end, ends this backend. */
  readonly mayLoop?: boolean;
  /** Stacks of its code by the lines that its author wrote. */
  readonly sourceStack?: ((stack: string) => string) | undefined;
  /** As it is shown, where that is not as it is. */
  readonly description?: DeviceDescription;
  readonly clock: Clock;
  readonly log: Log;
  /** For the device thread's lines: what a guest or a VMM can cause. */
  readonly theirLog: Log;
  /** The thread has come round, every `aliveMilliseconds`. */
  readonly onAlive?: () => void;
  readonly onPhase?: ((phase: SriovPhase, vfs: number) => void) | undefined;
}

const YOUNG_GENERATION_MEGABYTES = 2;
/** From the thread's last word to its end. */
const LONGEST_END_MILLISECONDS = 1000;

export class DeviceThread {
  readonly #device: PhysicalDevice;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #worker: Worker;
  readonly #wakeFd: number;
  readonly #turnCount: TurnCount | undefined;
  readonly #closer = new PeerFileCloser();
  #givingBack: Timer | undefined;
  #end: Timer | undefined;
  #measured: Settlement<Measurement> | undefined;
  #hasStopped = false;
  /** Settles when the sockets take clients; rejects with UserError where they can't be made. Neither where it is stopped before. */
  readonly ready: Promise<void>;
  /** Settles when the thread has ended in good order; rejects when a fault of ours ended it. */
  readonly ended: Promise<void>;
  /** Settles when the only client of a socket that was handed over has gone. */
  readonly clientGone: Promise<void>;

  constructor(options: StartOptions) {
    const { device, description = device.description, mayLoop, sourceStack, ...others } = options;
    const { clock, log, theirLog, onAlive, onPhase, ...rest } = others;
    const turnCount = mayLoop === true ? makeTurnCount() : undefined;
    this.#device = device;
    this.#clock = clock;
    this.#log = log;
    this.#wakeFd = createEventFd();
    this.#turnCount = turnCount;
    const workerData: DeviceThreadOptions = {
      ...rest,
      description,
      pf: device.pf,
      turnCount,
      tellsPhases: onPhase !== undefined,
      wakeFd: this.#wakeFd,
    };
    // What lives long enough to be copied is little: threads that help with it cost this one more than they spare it.
    setFlagsFromString('--no-parallel-scavenge');
    this.#worker = new Worker(new URL('./device-worker.js', import.meta.url), {
      workerData,
      // Fds are closed by system call here, which Node would take for a leak.
      trackUnmanagedFds: false,
      // A small young generation is collected often and soon done: a turn that a collection falls into stays short. A larger one
      // costs up to 6 MiB, and gains little where VFs come and go.
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MEGABYTES },
    });
    // A thread that sleeps in poll can't be terminated: without this the process would hang at its exit.
    const stopAtExit = (): void => void this.#tell({ type: 'stop' });
    process.on('exit', stopAtExit);
    const ready = settlement();
    const ended = settlement();
    const clientGone = settlement();
    let hasFailed = false;
    this.ready = ready.promise;
    this.ended = ended.promise;
    this.clientGone = clientGone.promise;
    const fail = (error: Error): void => {
      hasFailed = true;
      ready.reject(error);
      ended.reject(error);
    };
    this.#worker.on('message', (message: ToMainThread) => {
      if (message.type === 'ready') {
        ready.resolve();
      } else if (message.type === 'refused') {
        ready.reject(refused(message));
      } else if (message.type === 'log') {
        theirLog[message.level](message.message, message.fields);
      } else if (message.type === 'request') {
        void this.#serve(message);
      } else if (message.type === 'measured') {
        this.#measured?.resolve(message.measurement);
        this.#measured = undefined;
      } else if (message.type === 'closePeerFile') {
        this.#closer.close(message.fd);
      } else if (message.type === 'alive') {
        onAlive?.();
      } else if (message.type === 'phase') {
        onPhase?.(message.phase, message.vfs);
      } else if (message.type === 'clientGone') {
        clientGone.resolve();
      } else if (message.type === 'stopped') {
        this.#hasStopped = true;
        // Code of somebody else's may have put itself in the way of the end.
        this.#end = clock.after(LONGEST_END_MILLISECONDS, () => void this.#worker.terminate());
      }
    });
    const watch =
      turnCount === undefined
        ? undefined
        : watchTurns(turnCount, clock, (milliseconds) => {
            const stack = stacksOfThreads();
            fail(stuck(log, sourceStack?.(stack) ?? stack, milliseconds));
            void this.#worker.terminate();
          });
    // Told at the exit, before which Node delivers every message of the thread: its log lines come before the last word.
    let failure: Error | undefined;
    this.#worker.on('error', (error) => {
      failure = error;
    });
    this.#worker.on('exit', (code) => {
      process.off('exit', stopAtExit);
      this.#givingBack?.cancel();
      this.#end?.cancel();
      watch?.cancel();
      if (failure !== undefined) {
        log.error('the device thread has failed, and this backend ends', { stack: failure.stack });
        fail(failure);
      } else if (this.#hasStopped) {
        ended.resolve();
      } else if (!hasFailed) {
        log.error('the device thread has ended by itself, and so does this backend', { code });
        fail(endedByItself(code));
      }
    });
    device.onReleaseRequested((index) => {
      if (index === PF_INDEX) {
        this.#giveBackPf(options.unplugMilliseconds);
      } else {
        this.#tell({ type: 'vfLost', vfIndex: index });
      }
    });
  }

  /** How things are; those who ask at the same time get the same answer. Needs `hasMetrics`. */
  measure(): Promise<Measurement> {
    if (this.#measured === undefined) {
      this.#measured = settlement<Measurement>();
      this.#tell({ type: 'measure' });
    }
    return this.#measured.promise;
  }

  /** Takes the VFs away and ends the thread; one that still loads its device has none, and hears nothing. */
  stop(): void {
    if (this.#turnCount !== undefined && giveUp(this.#turnCount)) {
      this.#hasStopped = true;
      void this.#worker.terminate();
    } else {
      this.#tell({ type: 'stop' });
    }
  }

  // Whoever unbinds the PF waits in the kernel until nobody holds it: the VMM hears of it and has time to let go.
  #giveBackPf(milliseconds: number): void {
    this.#tell({ type: 'pfLost' });
    if (this.#givingBack !== undefined) {
      return;
    }
    this.#log.warn('the kernel asks for the PF back: this backend ends', { milliseconds });
    this.#givingBack = this.#clock.after(milliseconds, () => this.stop());
  }

  #tell(message: ToDeviceThread): void {
    this.#worker.postMessage(message);
    signalEventFd(this.#wakeFd);
  }

  async #serve({ id, name, args }: Extract<ToMainThread, { type: 'request' }>): Promise<void> {
    try {
      const reply = await perform(this.#device, name, args);
      this.#tell({ type: 'reply', id, reply });
    } catch (error) {
      this.#tell({ type: 'failed', id, failure: this.#failureOf(name, error) });
    }
  }

  #failureOf(name: string, error: unknown): HostFailure {
    if (error instanceof HostError) {
      const { call, errno, path, what, fix } = error;
      return { call, errno, path, what, fix };
    }
    this.#log.error(`${name}: a fault of this program`, {
      stack: error instanceof Error ? error.stack : String(error),
    });
    return { call: name, errno: Errno.EIO, path: '', what: 'a fault of this program' };
  }
}

function stuck(log: Log, stack: string, milliseconds: number): UserError {
  log.error(`the device's code has not returned; it is at\n    ${stack}`);
  return new UserError(
    `the device's code has not returned for ${milliseconds} ms, and this backend ends`,
    'callbacks are to be short: see in the log where it is, and use after() or work() for what takes long',
  );
}

function endedByItself(code: number): UserError {
  return new UserError(
    `the device thread has ended by itself, with code ${code}`,
    'code of a card of your own must not call process.exit(); where there is none, please report it',
  );
}

interface Settlement<T = void> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: Error): void;
}

function settlement<T = void>(): Settlement<T> {
  let resolve!: (value: T) => void;
  let reject!: (error: Error) => void;
  const promise = new Promise<T>((resolveIt, rejectIt) => {
    resolve = resolveIt;
    reject = rejectIt;
  });
  // Whoever does not wait for it is not to be ended by it.
  promise.catch(() => {});
  return { promise, resolve, reject };
}

function refused({ why, excerpt }: Extract<ToMainThread, { type: 'refused' }>): UserError {
  return new UserError(
    situationIn(why),
    why.fix ?? 'choose a path in a folder that exists and that you may write to',
    excerpt === undefined ? 1 : 2,
    excerpt,
  );
}
