// `vfio-user-sriov attach-qemu`: the glue alone, for a QEMU that already runs with a backend's devices.
import { Command } from 'commander';
import type { Log } from '../../protocol/log.ts';
import { type LogOptions, logOptions, makeLog } from '../../protocol/logging/stderr-log.ts';
import { onEndingSignal } from '../../protocol/unix/ending-signals.ts';
import { failedCall } from '../../protocol/user-error.ts';
import { QemuGlue } from '../qemu/glue.ts';
import { QmpError, QmpUnavailableError } from '../qemu/qmp.ts';

interface AttachOptions extends LogOptions {
  readonly qmp: string;
  readonly socketPath: readonly string[];
}

export function attachQemuCommand(): Command {
  const command = new Command('attach-qemu')
    .description(
      'Plugs the VFs of one or more backends into a running QEMU, until it is ended or all backends are gone.',
    )
    .requiredOption('--qmp <path>', "QEMU's QMP socket, which no other program uses")
    .requiredOption(
      '--socket-path <path>',
      "a backend's PF socket; once for each backend, in the order of their --index",
      (path: string, before: readonly string[] = []) => [...before, path],
    )
    .addHelpText(
      'after',
      '\nExample:\n  vfio-user-sriov attach-qemu --qmp=/tmp/sriov/qmp.sock --socket-path=/tmp/sriov/pf.sock\n',
    );
  for (const option of logOptions()) {
    command.addOption(option);
  }
  return command.action(async (options: AttachOptions) => {
    process.exitCode = await attach(options);
  });
}

/** Resolves with an exit status: 0 when ended by a signal, 1 when all backends went away. */
async function attach(options: AttachOptions): Promise<number> {
  const log = await makeLog(options);
  const interruption = new AbortController();
  const interrupted = new Promise<'interrupted'>((resolve) => {
    interruption.signal.addEventListener('abort', () => resolve('interrupted'));
  });
  // The guest must run on whatever happens: a second signal does not cut that short.
  onEndingSignal(log, () => interruption.abort());
  const glue = await startGlue(options, log, interruption.signal);
  if (glue === undefined) {
    return 0;
  }
  log.info('attached', { qmp: options.qmp, backends: options.socketPath });
  const reason = await Promise.race([interrupted, glue.ended.then(() => 'gone' as const)]);
  await glue.close();
  if (reason === 'interrupted') {
    return 0;
  }
  log.error('all backends are gone; QEMU must be started anew with new ones');
  return 1;
}

/** Undefined where the signal came first. */
async function startGlue(
  options: AttachOptions,
  log: Log,
  signal: AbortSignal,
): Promise<QemuGlue | undefined> {
  try {
    const { qmp: qmpPath, socketPath: socketPaths } = options;
    return await QemuGlue.start({ qmpPath, socketPaths, log, signal });
  } catch (error) {
    if (signal.aborted) {
      return undefined;
    }
    if (error instanceof QmpUnavailableError || error instanceof QmpError) {
      throw failedCall(error, 'check --qmp, and that this QEMU runs');
    }
    throw error;
  }
}
