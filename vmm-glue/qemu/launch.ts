// Runs a backend and a stock QEMU as one: the backend first, QEMU with its devices added, the glue before the guest
// runs; ends both when either ends, or when this process does. Called by the command `qemu`.
import type { SpawnOptions } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Transform } from 'node:stream';
import type { Clock, Timer } from '../../protocol/clock.ts';
import { parseReadyLine, type ReadyBackend } from '../../protocol/launch/ready-line.ts';
import {
  isSocketPath,
  MAX_SOCKET_PATH_BYTES,
  vfSocketPath,
} from '../../protocol/launch/socket-names.ts';
import type { Log } from '../../protocol/log.ts';
import { type EndingSignal, onEndingSignal } from '../../protocol/unix/ending-signals.ts';
import { readWholeFile } from '../../protocol/unix/whole-file.ts';
import { failedCall, UserError } from '../../protocol/user-error.ts';
import type { EnableTiming } from '../choreography/enable.ts';
import { Child, describeEnd, exitStatus, type ProcessEnd } from './child.ts';
import { amdWithFortyBits } from './cpu-model.ts';
import { QemuGlue } from './glue.ts';
import { Guardian } from './guardian.ts';
import { checkOpenFiles } from './open-files.ts';
import { checkArguments, type QemuRequest, qmpArguments } from './qemu-arguments.ts';
import { withoutUnfounded } from './qemu-stderr.ts';
import { checkQemu, type QemuProgram } from './qemu-version.ts';
import { deviceArguments, type Topology, type VfMemory } from './topology.ts';
import { chooseVfMemory, type VfMemoryChoice } from './vf-memory.ts';

export interface LaunchOptions {
  /** What starts a backend, up to and with `serve`. */
  readonly backendCommand: readonly string[];
  /** Options for it, other than its sockets. */
  readonly backendArguments: readonly string[];
  /** Where its sockets go; by default into a private folder that is removed in the end. */
  readonly socketPath?: string;
  readonly vfSocketsFolder?: string;
  readonly topology: Topology;
  /** Default: mapped, where QEMU can. */
  readonly vfMemory?: VfMemory;
  /** How many VFs, the first ones; default: MOST_MAPPED_VFS. */
  readonly mappedVfs?: number;
  readonly busAddress?: string;
  /** The QEMU program and the user's arguments for it. */
  readonly qemu: readonly string[];
  readonly log: Log;
  readonly clock: Clock;
  readonly onTiming?: (timing: EnableTiming) => void;
}

const QEMU_GRACE_MILLISECONDS = 5_000;
/** QEMU ends when its main loop comes round, which may wait for an answer of the backend's. */
const QEMU_END_MILLISECONDS = 30_000;
/** From so much on firmware cannot put the VF BARs of a port below 4 GiB. */
const BIG_BARS_BYTES = 2 ** 30;
const BACKEND_GRACE_MILLISECONDS = 10_000;
/** QEMU connects to each slot and maps RAM before it opens its monitor to us. */
const QMP_PATIENCE_MILLISECONDS = 60_000;

/** Resolves with QEMU's exit status (1 where the backend ended first, or no VFs could be plugged). Rejects with UserError. */
export async function launch(options: LaunchOptions): Promise<number> {
  const request = checkArguments(options.qemu.slice(1), readWholeFile);
  let launching: Launch | undefined;
  // As long as there is a folder: what comes before `run` waits is heard when it does.
  const letSignalsEnd = onEndingSignal(
    options.log,
    (signal) => launching?.interrupt(signal),
    () => launching?.logReopened(),
  );
  try {
    const folder = makePrivateFolder();
    const guardian = new Guardian(folder);
    try {
      launching = new Launch(options, request, folder, guardian);
      return await launching.run();
    } finally {
      rmSync(folder, { recursive: true, force: true });
      guardian.dismiss();
    }
  } finally {
    letSignalsEnd();
  }
}

/** For sockets. @throws UserError */
function makePrivateFolder(): string {
  try {
    return mkdtempSync(join(tmpdir(), 'vfio-user-sriov-'));
  } catch (error) {
    throw failedCall(
      error,
      'set TMPDIR to a folder that exists and that you may write to',
      'a folder for sockets',
    );
  }
}

class BackendEndedError extends UserError {
  readonly end: ProcessEnd;

  constructor(end: ProcessEnd) {
    super(`the backend did not start (${describeEnd(end)})`, 'look at what it logged above');
    this.end = end;
  }
}

class Launch {
  readonly #options: LaunchOptions;
  readonly #request: QemuRequest;
  readonly #folder: string;
  readonly #guardian: Guardian;
  #backend: Child | undefined;
  #qemu: Child | undefined;
  #glue: QemuGlue | undefined;
  /** QEMU was told to end, since its VFs could not be plugged. */
  #hasNoGlue = false;
  #attaching: Promise<void> = Promise.resolve();
  /** Ends everything that waits for a QEMU or a backend that nobody wants any more. */
  readonly #over = new AbortController();
  #interruptedBy: EndingSignal | undefined;
  /** Kills a QEMU that was told to end, and does not. */
  #impatience: Timer | undefined;

  constructor(options: LaunchOptions, request: QemuRequest, folder: string, guardian: Guardian) {
    this.#options = options;
    this.#request = request;
    this.#folder = folder;
    this.#guardian = guardian;
  }

  async run(): Promise<number> {
    try {
      const [ready, program] = await Promise.all([
        this.#startBackend(),
        checkQemu(this.#options.qemu[0]!, this.#over.signal),
      ]);
      if (this.#interruptedBy !== undefined) {
        return this.#interruptedStatus();
      }
      const backend = this.#backend!;
      const { vfMemory, obstacle } = this.#chooseVfMemory(ready, program);
      const qemu = this.#startQemu(ready, program, vfMemory);
      this.#attaching = this.#attachGlue(ready, qemu, obstacle);
      return await this.#untilOneEnds(backend, qemu);
    } catch (error) {
      if (this.#qemu !== undefined) {
        throw error;
      }
      if (this.#interruptedBy !== undefined) {
        return this.#interruptedStatus();
      }
      // A backend that ends by itself has said why.
      if (error instanceof BackendEndedError && error.end.code) {
        return error.end.code;
      }
      throw error;
    } finally {
      this.#over.abort();
      this.#impatience?.cancel();
      await this.#attaching;
      // QEMU first: one that still runs has lost its backend, may wait for an answer of it, and answers no glue.
      await this.#qemu?.end(QEMU_GRACE_MILLISECONDS);
      await this.#glue?.close();
      await this.#backend?.end(BACKEND_GRACE_MILLISECONDS);
    }
  }

  /** The backend's is in the same file. */
  logReopened(): void {
    this.#backend?.process.kill('SIGHUP');
  }

  /** Passed on to QEMU, which ends by it unless it hangs; before there is one, the start is given up. */
  interrupt(signal: EndingSignal): void {
    this.#interruptedBy = signal;
    const qemu = this.#qemu;
    if (qemu === undefined) {
      this.#over.abort();
      this.#backend?.process.kill('SIGTERM');
      return;
    }
    // By SIGQUIT it would dump its core, guest memory and all.
    qemu.process.kill(signal === 'SIGQUIT' ? 'SIGTERM' : signal);
    this.#impatience ??= this.#options.clock.after(QEMU_END_MILLISECONDS, () => {
      this.#options.log.error(
        `QEMU has not ended within ${QEMU_END_MILLISECONDS / 1000} s of ${signal}: killing it`,
      );
      qemu.process.kill('SIGKILL');
    });
  }

  /** As a shell shows a program that a signal has ended. */
  #interruptedStatus(): number {
    return 128 + constants.signals[this.#interruptedBy ?? 'SIGTERM'];
  }

  async #startBackend(): Promise<ReadyBackend> {
    const { backendCommand, backendArguments } = this.#options;
    const socketPath = this.#options.socketPath ?? join(this.#folder, 'pf.sock');
    const ownVfSockets = join(this.#folder, 'vfs');
    const vfSockets = this.#options.vfSocketsFolder ?? ownVfSockets;
    this.#checkPathLength(socketPath);
    this.#checkPathLength(vfSocketPath(vfSockets, 0));
    mkdirSync(ownVfSockets, { mode: 0o700 });
    const sockets = [`--socket-path=${socketPath}`, `--vf-sockets=${vfSockets}`];
    const how: SpawnOptions = {
      stdio: ['ignore', 'pipe', 'inherit'],
      // A session of its own: Ctrl-C is for QEMU, and the backend ends when QEMU has.
      detached: true,
      // VFs of a physical device are opened side by side, each on a thread of the backend's pool (as in cli.ts).
      env: { UV_THREADPOOL_SIZE: '64', ...process.env },
    };
    const command = [...backendCommand, ...backendArguments, ...sockets];
    const child = new Child(command, how, this.#options.clock);
    this.#backend = child;
    this.#guardian.watch('backend', child.process.pid);
    return await this.#readyLine(child);
  }

  async #readyLine(child: Child): Promise<ReadyBackend> {
    const lines = createInterface({ input: child.process.stdout! });
    const ready = new Promise<ReadyBackend>((resolve, reject) => {
      // Later lines are read and dropped: nobody else reads that pipe.
      lines.on('line', (line) => {
        try {
          const parsed = parseReadyLine(line);
          if (parsed !== undefined) {
            resolve(parsed);
          }
        } catch (error) {
          reject(error);
        }
      });
    });
    const early = child.ended.then((end) => {
      throw new BackendEndedError(end);
    });
    early.catch(() => {});
    return await Promise.race([ready, early]);
  }

  #startQemu(ready: ReadyBackend, program: QemuProgram, vfMemory: VfMemory): Child {
    const { qemu: command, topology, busAddress, mappedVfs } = this.#options;
    const { ramBytes, startsPaused, machine } = this.#request;
    this.#warnOfNoRoom(ready);
    const devices = deviceArguments({
      ...ready,
      index: 0,
      topology,
      vfMemory,
      machine,
      ...(mappedVfs === undefined ? {} : { mappedVfs }),
      ...(busAddress === undefined ? {} : { busAddress }),
      ...(ramBytes === undefined ? {} : { ramBytes }),
    });
    const added = [...qmpArguments(this.#qmpPath()), ...devices];
    // The kernel ends QEMU with us, in whatever way we end; the guardian does it with a QEMU that cannot have that.
    if (program.exitsWithParent) {
      added.push('-run-with', 'exit-with-parent=on');
    }
    // The guest waits for the glue.
    if (!startsPaused) {
      added.push('-S');
    }
    this.#options.log.debug('starting QEMU', { added });
    checkOpenFiles(ready.totalVfs);
    const qemu = new Child(
      [...command, ...added],
      { stdio: ['inherit', 'inherit', 'pipe'] },
      this.#options.clock,
    );
    qemu.process.stderr?.pipe(this.#stderrFilter()).pipe(process.stderr, { end: false });
    this.#qemu = qemu;
    this.#guardian.watch('qemu', qemu.process.pid);
    void qemu.ended.then(() => {
      this.#guardian.watch('qemu', undefined);
      this.#over.abort();
    });
    return qemu;
  }

  #chooseVfMemory({ totalVfs }: ReadyBackend, { knowsExpanderBus }: QemuProgram): VfMemoryChoice {
    const { vfMemory: asked, topology, mappedVfs, log } = this.#options;
    const choice = chooseVfMemory({
      ...{ asked, index: 0, topology, totalVfs, knowsExpanderBus, machine: this.#request },
      ...(mappedVfs === undefined ? {} : { mappedVfs }),
    });
    if (choice.obstacle !== undefined) {
      const say = asked === undefined ? log.info : log.warn;
      say(`VFs stay trapped: ${choice.obstacle}`);
    }
    return choice;
  }

  #warnOfNoRoom({ vfBars, totalVfs }: ReadyBackend): void {
    const { machine, cpu } = this.#request;
    const model = machine === 'q35' ? amdWithFortyBits(cpu) : undefined;
    const bytes = vfBars.reduce((sum, { size }) => sum + size * totalVfs, 0);
    if (model !== undefined && bytes >= BIG_BARS_BYTES) {
      this.#options.log.warn(
        `processor ${model}: on AMD's with 40 address bits Linux may find no room for ${bytes / 2 ** 20} MiB of VF BARs; ` +
          `add phys-bits=46 to -cpu (-cpu ${model},phys-bits=46)`,
      );
    }
  }

  #stderrFilter(): Transform {
    return withoutUnfounded(() =>
      this.#options.log.info(
        'QEMU warns of VFs at device numbers above 0 behind a root port: left out, since the PF has ARI and the guest reaches them',
      ),
    );
  }

  async #attachGlue(
    ready: ReadyBackend,
    qemu: Child,
    whyTrapped: string | undefined,
  ): Promise<void> {
    const { log, onTiming } = this.#options;
    try {
      this.#glue = await QemuGlue.start({
        qmpPath: this.#qmpPath(),
        socketPaths: [ready.socketPath],
        log,
        patienceMilliseconds: QMP_PATIENCE_MILLISECONDS,
        signal: this.#over.signal,
        expectsAnother: false,
        ...(whyTrapped === undefined ? {} : { whyTrapped }),
        ...(onTiming === undefined ? {} : { onTiming }),
      });
      if (!this.#request.startsPaused) {
        await this.#glue.continueGuest();
      }
      log.info(`to see what it is doing: vfio-user-sriov status --socket-path=${ready.socketPath}`);
    } catch (error) {
      // A QEMU that a signal ends lets go of its monitor before it is gone.
      if (this.#over.signal.aborted || this.#interruptedBy !== undefined) {
        return;
      }
      log.error(`ending QEMU, since no VFs could be plugged: ${(error as Error).message}`);
      this.#hasNoGlue = true;
      qemu.process.kill('SIGTERM');
    }
  }

  async #untilOneEnds(backend: Child, qemu: Child): Promise<number> {
    const first = await Promise.race([
      qemu.ended.then((end) => ({ isQemu: true, end })),
      backend.ended.then((end) => ({ isQemu: false, end })),
    ]);
    if (first.isQemu) {
      // A QEMU that is told to end by us ends well.
      return exitStatus(first.end) || (this.#hasNoGlue ? 1 : 0);
    }
    this.#options.log.error(
      `the backend has ended (${describeEnd(first.end)}), so the guest's devices are dead: ending QEMU`,
    );
    return 1;
  }

  #qmpPath(): string {
    return join(this.#folder, 'qmp.sock');
  }

  #checkPathLength(path: string): void {
    if (isSocketPath(path)) {
      return;
    }
    throw new UserError(
      `socket path ${path}: longer than the ${MAX_SOCKET_PATH_BYTES} bytes that Linux allows`,
      'set TMPDIR to a shorter folder, or give shorter paths',
    );
  }
}
