// A running QEMU with a guest of the lab inside: boots it, runs commands in it, restarts it, ends it. Everything
// waits with a limit, and every failure shows the end of the guest's console.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** How a command inside the guest ended; `output` is what it printed on both standard output and error. */
export interface CommandResult {
  readonly status: number;
  readonly output: string;
}

/** How the VM's process ended. */
export interface VmExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** What to start: a QEMU, or a program that starts one and takes QEMU's arguments last. */
export interface GuestVmOptions {
  readonly command: string;
  /** Without `-serial`: the first two serial ports are the VM's console and its command channel. */
  readonly args: readonly string[];
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
}

/** Limit for one thing to happen. */
export interface Limit {
  readonly timeoutMs?: number;
}

const CONSOLE_TAIL_LINES = 40;
const BOOT_TIMEOUT_MS = 120_000;
const RUN_TIMEOUT_MS = 60_000;
const EXIT_TIMEOUT_MS = 60_000;
/** The guest ends a command by itself first; this is how much later the host gives up on the guest. */
const GUEST_GRACE_MS = 15_000;
/** After this long a command that has not arrived is sent again. */
const RESEND_MS = 2_000;
/** A line longer than this could overrun a terminal's line buffer. */
const CHUNK_LENGTH = 1024;

export class GuestVm {
  /** Resolves when the process, and all that still held its output, has ended, for whatever reason. */
  readonly exited: Promise<VmExit>;
  readonly #process: ChildProcess;
  readonly #folder: string;
  readonly #servers: Server[] = [];
  readonly #listeners = new Set<() => void>();
  readonly #boots: string[] = [];
  readonly #results = new Map<number, CommandResult>();
  #console = '';
  #processOutput = '';
  #agent: Socket | undefined;
  #agentPending = '';
  #current: { id: number; output: string } | undefined;
  #exit: VmExit | undefined;
  #startFailure: string | undefined;
  /** The last command that the agent said it has. */
  #arrived: number | undefined;
  #nextId = 1;
  #lastRun: Promise<unknown> = Promise.resolve();

  private constructor(folder: string, options: GuestVmOptions, serialArgs: readonly string[]) {
    this.#folder = folder;
    // The VM has a process group of its own, so that kill() reaches what a starter started, and a death signal, so
    // that it does not outlive this process.
    const command = ['--pdeathsig', 'KILL', '--', options.command, ...options.args, ...serialArgs];
    this.#process = spawn('/usr/bin/setpriv', command, {
      cwd: options.cwd,
      env: options.env ?? process.env,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [this.#process.stdout!, this.#process.stderr!]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#processOutput += text;
        this.#notify();
      });
    }
    this.exited = new Promise((resolve) => {
      const end = (exit: VmExit) => {
        this.#exit = exit;
        this.#cleanUp();
        this.#notify();
        resolve(exit);
      };
      this.#process.on('error', (error) => {
        this.#startFailure = error.message;
        end({ code: null, signal: null });
      });
      this.#process.on('close', (code, signal) => end({ code, signal }));
    });
    LIVE.add(this);
  }

  /** Starts the process; the guest boots meanwhile: see waitForBoot. */
  static async start(options: GuestVmOptions): Promise<GuestVm> {
    const folder = await mkdtemp(join(tmpdir(), 'guest-vm-'));
    const paths = { console: join(folder, 'console'), agent: join(folder, 'agent') };
    const servers = [createServer(), createServer()];
    await Promise.all([listen(servers[0]!, paths.console), listen(servers[1]!, paths.agent)]);
    const serialArgs = Object.entries(paths).flatMap(([name, path]) => [
      '-chardev',
      `socket,id=lab-${name},path=${path}`,
      '-serial',
      `chardev:lab-${name}`,
    ]);
    const vm = new GuestVm(folder, options, serialArgs);
    vm.#servers.push(...servers);
    servers[0]!.on('connection', (socket) => vm.#readConsole(socket));
    servers[1]!.on('connection', (socket) => vm.#readAgent(socket));
    return vm;
  }

  /** The process id of what was started. */
  get pid(): number {
    return this.#process.pid ?? 0;
  }

  /** All that the guest has printed on its console. */
  get consoleLog(): string {
    return this.#console;
  }

  /** All that the process itself has printed: QEMU's warnings, a starter's log. */
  get processOutput(): string {
    return this.#processOutput;
  }

  get hasExited(): boolean {
    return this.#exit !== undefined;
  }

  /** How many times the guest has come up. */
  get bootCount(): number {
    return this.#boots.length;
  }

  /** Waits until the guest takes commands, for the `boot`-th time if that is given. */
  async waitForBoot({ timeoutMs = BOOT_TIMEOUT_MS, boot = 1 }: Limit & { boot?: number } = {}) {
    await this.#until(`boot ${boot} of the guest`, timeoutMs, () => this.bootCount >= boot);
  }

  /** Waits until the guest's console shows `pattern`, and gives the match. */
  async waitForConsole(
    pattern: RegExp,
    { timeoutMs = RUN_TIMEOUT_MS }: Limit = {},
  ): Promise<RegExpExecArray> {
    return await this.#until(
      `${pattern} on the console`,
      timeoutMs,
      () => pattern.exec(this.#console) ?? undefined,
    );
  }

  /** Runs a shell command in the guest; one at a time. Throws when it takes longer than the limit. */
  run(command: string, { timeoutMs = RUN_TIMEOUT_MS }: Limit = {}): Promise<CommandResult> {
    const result = this.#lastRun.then(() => this.#runNow(command, timeoutMs));
    this.#lastRun = result.catch(() => {});
    return result;
  }

  /** Runs a shell command in the guest, throws unless its status is 0, and gives its output, trimmed. */
  async check(command: string, limit: Limit = {}): Promise<string> {
    const { status, output } = await this.run(command, limit);
    if (status !== 0) {
      throw this.#failure(`"${command}" ended with ${status} in the guest:\n${output}`);
    }
    return output.trim();
  }

  /** Restarts the guest within the same QEMU and waits until it takes commands again. */
  async reboot({ timeoutMs = BOOT_TIMEOUT_MS }: Limit = {}): Promise<void> {
    const boot = this.bootCount + 1;
    this.#send('reboot -f', 0, 60);
    await this.waitForBoot({ boot, timeoutMs });
  }

  /** Switches the guest off and waits until the process has ended. */
  async powerOff({ timeoutMs = EXIT_TIMEOUT_MS }: Limit = {}): Promise<VmExit> {
    this.#send('poweroff -f', 0, 60);
    return await this.waitForExit({ timeoutMs });
  }

  /** Waits until the process has ended by itself. */
  async waitForExit({ timeoutMs = EXIT_TIMEOUT_MS }: Limit = {}): Promise<VmExit> {
    return await this.#until('end of the process', timeoutMs, () => this.#exit);
  }

  /** Ends the process and all that it started: SIGTERM first, SIGKILL for what is left after `timeoutMs`. */
  async kill({ timeoutMs = 5_000 }: Limit = {}): Promise<VmExit> {
    if (this.#exit === undefined) {
      this.#process.kill('SIGTERM');
      const timer = setTimeout(() => this.killGroup(), timeoutMs);
      await this.exited;
      clearTimeout(timer);
    }
    return await this.exited;
  }

  /** Sends SIGKILL to the VM's process group at once. */
  killGroup(): void {
    // After the end the number may belong to somebody else.
    if (this.#process.pid === undefined || this.#exit !== undefined) {
      return;
    }
    try {
      process.kill(-this.#process.pid, 'SIGKILL');
    } catch {
      // Nothing of the group is left.
    }
  }

  async #runNow(command: string, timeoutMs: number): Promise<CommandResult> {
    if (this.bootCount === 0) {
      throw this.#failure(`"${command}" was to run before the guest was up`);
    }
    const id = this.#nextId++;
    const boot = this.bootCount;
    const start = performance.now();
    const seconds = Math.ceil(timeoutMs / 1000);
    this.#send(command, id, seconds);
    // A command that lost bytes on its way, or whose arrival was not told, is sent again; the agent runs it once.
    const resend = setInterval(() => {
      if (this.#arrived !== id) {
        this.#send(command, id, seconds);
      }
    }, RESEND_MS);
    const result = await this.#until(`"${command}"`, timeoutMs + GUEST_GRACE_MS, () => {
      if (this.bootCount !== boot) {
        throw this.#failure(`the guest restarted during "${command}"`);
      }
      return this.#results.get(id);
    }).finally(() => clearInterval(resend));
    this.#results.delete(id);
    // 128 + SIGTERM or SIGKILL: the guest's timeout(1) had to end it.
    if ([137, 143].includes(result.status) && performance.now() - start >= timeoutMs) {
      throw this.#failure(
        `"${command}" took longer than ${timeoutMs} ms; so far:\n${result.output}`,
      );
    }
    return result;
  }

  #send(command: string, id: number, seconds: number): void {
    const encoded = Buffer.from(`${command}\n`).toString('base64');
    let lines = '\nNEW\n';
    for (let start = 0; start < encoded.length; start += CHUNK_LENGTH) {
      lines += `+ ${encoded.slice(start, start + CHUNK_LENGTH)}\n`;
    }
    this.#agent?.write(`${lines}RUN ${id} ${seconds} ${encoded.length}\n`);
  }

  #readConsole(socket: Socket): void {
    socket.on('error', () => {});
    socket.setEncoding('utf8').on('data', (text: string) => {
      this.#console += text.replaceAll('\r', '');
      this.#notify();
    });
  }

  #readAgent(socket: Socket): void {
    this.#agent = socket;
    socket.on('error', () => {});
    socket.setEncoding('latin1').on('data', (text: string) => {
      const lines = (this.#agentPending + text).split('\n');
      this.#agentPending = lines.pop()!;
      for (const line of lines) {
        this.#takeAgentLine(line.trimEnd());
      }
      this.#notify();
    });
  }

  #takeAgentLine(line: string): void {
    const ready = /READY ([0-9a-f-]{36})$/.exec(line);
    const got = /^GOT (\d+)$/.exec(line);
    const begin = /^BEGIN (\d+)$/.exec(line);
    const end = /^END (\d+) (\d+)$/.exec(line);
    if (ready !== null) {
      this.#boots.push(ready[1]!);
      this.#current = undefined;
    } else if (got !== null) {
      this.#arrived = Number(got[1]);
    } else if (begin !== null) {
      this.#current = { id: Number(begin[1]), output: '' };
    } else if (end !== null && this.#current?.id === Number(end[1])) {
      const output = Buffer.from(this.#current.output, 'base64').toString('utf8');
      this.#results.set(this.#current.id, { status: Number(end[2]), output });
      this.#current = undefined;
    } else if (this.#current !== undefined) {
      this.#current.output += line;
    }
  }

  /** Waits until `condition` gives something other than undefined and false. */
  #until<T>(what: string, timeoutMs: number, condition: () => T | undefined | false): Promise<T> {
    return new Promise((resolve, reject) => {
      const finish = (action: () => void) => {
        clearTimeout(timer);
        this.#listeners.delete(look);
        action();
      };
      const look = () => {
        try {
          const value = condition();
          if (value !== undefined && value !== false) {
            return finish(() => resolve(value));
          }
          const obstacle = this.#obstacle();
          if (obstacle !== undefined) {
            return finish(() => reject(this.#failure(`waiting for ${what}: ${obstacle}`)));
          }
        } catch (error) {
          finish(() => reject(error));
        }
      };
      const timer = setTimeout(
        () =>
          finish(() => reject(this.#failure(`waiting for ${what}: not within ${timeoutMs} ms`))),
        timeoutMs,
      );
      this.#listeners.add(look);
      look();
    });
  }

  #obstacle(): string | undefined {
    if (this.#startFailure !== undefined) {
      return `it could not be started: ${this.#startFailure}`;
    }
    if (this.#exit !== undefined) {
      return `the process ended with ${this.#exit.code ?? this.#exit.signal}`;
    }
    const panic = /(Kernel panic - .*)\n/.exec(this.#console);
    return panic?.[1];
  }

  #failure(message: string): Error {
    const tail = this.#console.trimEnd().split('\n').slice(-CONSOLE_TAIL_LINES).join('\n');
    const output = this.#processOutput.trimEnd().split('\n').slice(-CONSOLE_TAIL_LINES).join('\n');
    return new Error(`${message}\n--- end of the console:\n${tail}\n--- the process:\n${output}`);
  }

  #notify(): void {
    for (const look of [...this.#listeners]) {
      look();
    }
  }

  #cleanUp(): void {
    LIVE.delete(this);
    for (const server of this.#servers) {
      server.close();
    }
    rm(this.#folder, { recursive: true, force: true }).catch(() => {});
  }
}

const LIVE = new Set<GuestVm>();
process.on('exit', () => {
  for (const vm of LIVE) {
    vm.killGroup();
  }
});

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
}
