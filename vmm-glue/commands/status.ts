// `vfio-user-sriov status`: asks running backends what they are doing, each over its PF's socket, while a VM is attached.

import { Command } from 'commander';
import { Errno } from '../../protocol/errno.ts';
import { situationOf } from '../../protocol/explained-error.ts';
import type { DeviceStatus } from '../../protocol/hotplug/status.ts';
import { LONGEST_MILLISECONDS } from '../../protocol/launch/option-values.ts';
import { printable, printableJson } from '../../protocol/printable.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { SyscallError } from '../../protocol/unix/syscall-error.ts';
import { UserError } from '../../protocol/user-error.ts';
import type { VfioUserClient } from '../client/client.ts';
import {
  ConnectionClosedError,
  RemoteError,
  ReplyTimeoutError,
  ServerProtocolError,
} from '../client/connection-errors.ts';
import { observe } from '../client/observer.ts';
import { type DriverLook, DriverView, lookAtTrace } from './driver-view.ts';
import { type RunningBackend, runningBackends } from './running-backends.ts';
import { statusText } from './status-text.ts';
import { watch } from './watch.ts';
import { wholeNumber } from './whole-number.ts';

const WATCH_MILLISECONDS = 1000;
/** Where nobody listens: at a path that a person gave, and at one that a process was started with. */
const ABSENT_FIX =
  'is the backend running? `vfio-user-sriov status` alone lists those of this user';
const GONE_FIX = 'it has ended since, or its socket was removed';

interface StatusOptions {
  readonly socketPath?: string;
  readonly json?: true;
  readonly timeout: number;
  readonly watch?: number | true;
}

export function statusCommand(): Command {
  return new Command('status')
    .description(
      'Shows what a running backend is doing: PF, VFs, who holds them, quarantine. Without --socket-path, all ' +
        'backends of this user on this machine, and for root those of every user.',
    )
    .option('--socket-path <path>', "the backend's PF socket")
    .option('--json', 'as JSON, for programs; of one backend')
    .option(
      '--watch [ms]',
      'show it again and again, every second unless told otherwise, until Ctrl-C; of one backend',
      wholeNumber(100, LONGEST_MILLISECONDS),
    )
    .option(
      '--timeout <ms>',
      'how long to wait for each answer',
      wholeNumber(1, LONGEST_MILLISECONDS),
      2000,
    )
    .addHelpText(
      'after',
      '\nExample:\n  vfio-user-sriov status --watch --socket-path=/tmp/pf.sock\n',
    )
    .action(async (options: StatusOptions) => {
      if (options.watch !== undefined) {
        await watchOne(options.socketPath ?? onlyBackend().socketPath, options);
        return;
      }
      if (options.socketPath !== undefined) {
        show(await statusOf(options.socketPath, options.timeout), options);
        return;
      }
      const backends = ownBackends();
      if (backends.length > 1 && options.json === true) {
        throw severalBackends(backends);
      }
      // All are asked at once: those that do not answer are waited for together.
      const answers = backends.map(({ socketPath }) => answerOf(socketPath, options.timeout));
      for (const [at, { socketPath, pid }] of backends.entries()) {
        if (options.json !== true) {
          process.stdout.write(`${printable(socketPath)}, process ${pid}\n`);
        }
        showOrExplain(await answers[at]!, options);
      }
    });
}

function show(status: DeviceStatus, { json }: StatusOptions): void {
  const driver = status.trace?.on === true ? lookAtTrace(status.trace) : {};
  process.stdout.write(
    json === true ? `${printableJson(withFinding(status, driver))}\n` : statusText(status, driver),
  );
}

/** For programs: `trace.finding` is null where there is none, and absent where it is not known. */
function withFinding(status: DeviceStatus, { finding, problem }: DriverLook): object {
  return status.trace?.on === true && problem === undefined
    ? { ...status, trace: { ...status.trace, finding: finding ?? null } }
    : status;
}

/** One backend that does not answer does not hide the others. */
function showOrExplain(answer: DeviceStatus | Error, options: StatusOptions): void {
  if (!(answer instanceof Error)) {
    show(answer, options);
    return;
  }
  if (!(answer instanceof UserError)) {
    throw answer;
  }
  process.stderr.write(`vfio-user-sriov: ${printable(answer.message)}\n`);
  process.exitCode = 1;
}

/** What each backend of this user answers, or why it does not. */
export async function allStatuses(timeoutMilliseconds: number): Promise<(DeviceStatus | string)[]> {
  const answers = runningBackends(process.geteuid?.() ?? 0).map(({ socketPath }) =>
    answerOf(socketPath, timeoutMilliseconds),
  );
  return (await Promise.all(answers)).map((answer) =>
    answer instanceof Error ? answer.message : answer,
  );
}

/** @throws UserError where there is none */
function ownBackends(): RunningBackend[] {
  const backends = runningBackends(process.geteuid?.() ?? 0);
  if (backends.length === 0) {
    throw new UserError(
      'no backend of this user is running',
      'start one with `vfio-user-sriov serve` or `qemu`; one of another user needs sudo',
    );
  }
  return backends;
}

/** @throws UserError where there is none, or more than one */
function onlyBackend(): RunningBackend {
  const backends = ownBackends();
  if (backends.length > 1) {
    throw severalBackends(backends);
  }
  return backends[0]!;
}

/** Over one connection, which ends with the backend. */
async function watchOne(path: string, options: StatusOptions): Promise<void> {
  const { watch: interval, timeout } = options;
  if (options.json === true) {
    throw new UserError('--watch is for people', 'leave --json out, or ask again and again', 2);
  }
  const ending = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => ending.abort());
  }
  const client = await connect(path, timeout);
  const driver = new DriverView(client);
  try {
    await watch({
      output: process.stdout,
      milliseconds: interval === true || interval === undefined ? WATCH_MILLISECONDS : interval,
      clock: processClock,
      signal: ending.signal,
      isDumb: process.env.TERM === 'dumb',
      ask: async () => {
        const status = await client.getStatus();
        return { status, driver: await driver.look(status.trace) };
      },
    });
  } catch (error) {
    throw error instanceof ConnectionClosedError
      ? new UserError(`${path}: the backend has ended`, 'its log says why')
      : explained(path, error);
  } finally {
    client.close();
    driver.close();
  }
}

function severalBackends(backends: readonly RunningBackend[]): UserError {
  const sockets = backends.map(({ socketPath }) => socketPath).join(', ');
  return new UserError(
    `${backends.length} backends of this user are running: ${sockets}`,
    'choose one with --socket-path',
    2,
  );
}

/** Rejects with UserError where nobody gives an answer. */
async function statusOf(
  path: string,
  timeoutMilliseconds: number,
  absentFix?: string,
): Promise<DeviceStatus> {
  const client = await connect(path, timeoutMilliseconds, absentFix);
  try {
    return await client.getStatus();
  } catch (error) {
    throw explained(path, error);
  } finally {
    client.close();
  }
}

/** Why it does not answer, where it does not. */
function answerOf(path: string, timeoutMilliseconds: number): Promise<DeviceStatus | Error> {
  return statusOf(path, timeoutMilliseconds, GONE_FIX).catch((error: Error) => error);
}

async function connect(
  path: string,
  timeoutMilliseconds: number,
  absentFix?: string,
): Promise<VfioUserClient> {
  try {
    return await observe(path, timeoutMilliseconds);
  } catch (error) {
    throw explained(path, error, absentFix);
  }
}

/** What a failure to ask means to a person; anything else stays as it is. */
function explained(path: string, error: unknown, absentFix = ABSENT_FIX): unknown {
  if (error instanceof SyscallError) {
    const isAbsent = error.errno === Errno.ENOENT || error.errno === Errno.ECONNREFUSED;
    const fix = isAbsent ? absentFix : (error.fix ?? 'check the path');
    return new UserError(situationOf(error), fix);
  }
  if (error instanceof ReplyTimeoutError) {
    return new UserError(`${path}: the backend does not answer`, 'look at its log');
  }
  if (error instanceof RemoteError) {
    return new UserError(
      `${path}: the backend answered ${error.code}`,
      "give the PF's socket, not a VF's; another vfio-user server, or an older backend, has no status",
    );
  }
  if (error instanceof ConnectionClosedError || error instanceof ServerProtocolError) {
    return new UserError(
      `${path}: no backend answers there (${printable(error.message)})`,
      "give the PF's socket of a backend, such as `serve` and `qemu` print it",
    );
  }
  return error;
}
