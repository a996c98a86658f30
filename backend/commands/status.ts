// `status`: asks a running backend what it is doing, over its PF socket, while a VM is attached to it.

import { Command } from 'commander';
import { Errno, errnoName } from '../../protocol/errno.ts';
import { situationOf } from '../../protocol/explained-error.ts';
import { HotplugCommand } from '../../protocol/hotplug/codec.ts';
import { connectUnix, SocketBuffer } from '../../protocol/unix/fd-socket.ts';
import { closeFd, SyscallError } from '../../protocol/unix/libc.ts';
import { PollSet } from '../../protocol/unix/poll-set.ts';
import { UserError } from '../../protocol/user-error.ts';
import { Command as VfioUserCommand } from '../../protocol/vfio-user/commands.ts';
import { encodeFrame, type Frame, FrameAssembler } from '../../protocol/vfio-user/framing.ts';
import { HeaderFlag } from '../../protocol/vfio-user/messages.ts';
import { encodeVersion } from '../../protocol/vfio-user/negotiation.ts';
import { wholeNumber } from '../devices/option-values.ts';
import type { DeviceStatus, VfStatus } from '../hotplug/status.ts';

const MAX_REPLY_BYTES = 1 << 20;

export function statusCommand(): Command {
  return new Command('status')
    .summary('shows what a running backend is doing')
    .description('Shows what a running backend is doing: PF, VFs, who holds them, quarantine.')
    .requiredOption('--socket-path <path>', "the backend's PF socket")
    .option('--json', 'as JSON, for programs')
    .option('--timeout <ms>', 'how long to wait for the answer', wholeNumber(1), 2000)
    .action((options: { socketPath: string; json?: true; timeout: number }) => {
      const text = askStatus(options.socketPath, options.timeout);
      process.stdout.write(
        options.json === true ? `${text}\n` : statusText(JSON.parse(text) as DeviceStatus),
      );
    });
}

/** The backend's status as JSON text. @throws UserError where nobody answers. */
function askStatus(path: string, timeoutMilliseconds: number): string {
  const fd = connect(path);
  try {
    const deadline = Date.now() + timeoutMilliseconds;
    const capabilities = { max_data_xfer_size: MAX_REPLY_BYTES, sriov_status: { version: 1 } };
    const ask = (command: number, body: Uint8Array): Frame =>
      call(fd, path, command, body, deadline);
    ask(VfioUserCommand.version, encodeVersion(0, 1, capabilities));
    return new TextDecoder().decode(ask(HotplugCommand.getStatus, new Uint8Array(0)).body);
  } finally {
    closeFd(fd);
  }
}

function connect(path: string): number {
  try {
    return connectUnix(path);
  } catch (error) {
    if (!(error instanceof SyscallError)) {
      throw error;
    }
    const nobody = error.errno === Errno.ENOENT || error.errno === Errno.ECONNREFUSED;
    throw new UserError(
      situationOf(error),
      nobody ? 'is the backend running? give the path that it was started with' : 'check the path',
    );
  }
}

function call(
  fd: number,
  path: string,
  command: number,
  body: Uint8Array,
  deadline: number,
): Frame {
  const buffer = new SocketBuffer(MAX_REPLY_BYTES + 4096);
  const assembler = new FrameAssembler({ maxMessageBytes: MAX_REPLY_BYTES, maxFds: 1 });
  const message = encodeFrame({ id: command, command, flags: HeaderFlag.command }, body);
  buffer.data.set(message);
  buffer.send(fd, 0, message.length);
  const poll = new PollSet();
  poll.set(fd, { readable: true });
  let answer: Frame | undefined;
  while (answer === undefined) {
    const left = deadline - Date.now();
    if (left <= 0 || poll.wait(left) === 0) {
      throw new UserError(`${path}: the backend does not answer`, 'look at its log');
    }
    const received = buffer.receive(fd);
    if (received <= 0) {
      throw new UserError(`${path}: the connection ended`, 'look at its log');
    }
    assembler.push(buffer.data.subarray(0, received), buffer.fds, (frame) => {
      answer = { ...frame, body: frame.body.slice() };
    });
  }
  if (answer.error !== 0) {
    throw new UserError(
      `${path}: the backend answered ${errnoName(answer.error)}`,
      'it may be another vfio-user server, or an older backend',
    );
  }
  return answer;
}

/** The tree that a person reads. */
export function statusText(status: DeviceStatus): string {
  const lines = [
    `${status.device}  SR-IOV ${status.phase}  ${status.vfEnable ? status.numVfs : 0} of ${status.totalVfs} VFs`,
    `├─ PF      ${status.pf.attached ? 'attached' : 'no VM'}; ${counts(status.pf)}`,
    `├─ hot-plug by ${status.hotplug ?? 'nobody'}, generation ${status.generation}`,
  ];
  if (status.failure !== null) {
    lines.push(`├─ last enable failed: ${status.failure}`);
  }
  for (const text of status.pf.failedMaps) {
    lines.push(`├─ ${text}`);
  }
  const held = new Set(status.quarantine.map(({ vfIndex }) => vfIndex));
  for (const vf of status.vfs) {
    const isHeld = held.has(vf.index);
    if (vf.state === 'absent' && !vf.attached && !isHeld) {
      continue;
    }
    lines.push(`├─ VF ${String(vf.index).padEnd(4)} ${vfText(vf, isHeld)}`);
    for (const text of vf.failedMaps) {
      lines.push(`├─ VF ${vf.index}: ${text}`);
    }
  }
  const last = lines.length - 1;
  lines[last] = lines[last]!.replace('├', '└');
  return `${lines.join('\n')}\n`;
}

function vfText(vf: VfStatus, isHeld: boolean): string {
  const state = isHeld ? 'in quarantine' : vf.state;
  const holder = vf.holder === null ? '' : `, held by ${vf.holder}`;
  const generation = vf.generation === 0 ? '' : `, generation ${vf.generation}`;
  return `${state}${generation}${holder}; ${counts(vf)}`;
}

function counts(of: { messages: number; interrupts: number; dmaWindows: number }): string {
  const parts = [
    counted(of.messages, 'message'),
    counted(of.interrupts, 'interrupt'),
    counted(of.dmaWindows, 'DMA window'),
  ];
  return parts.join(', ');
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}
