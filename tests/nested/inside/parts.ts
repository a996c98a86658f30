// Backends, QEMU and glue started one by one, as somebody with a launcher of their own would: for what the command
// `qemu` does not do, such as two PFs in one VM, or a glue that ends alone.
import { mkdtempSync } from 'node:fs';
import { GuestVm } from '../../lab/guest.ts';
import { cli } from './host.ts';
import { CLI, qemuArguments, VF_MEMORY, waitForGuest } from './inner-guest.ts';
import { Program } from './program.ts';

const VFS = '7';

export interface SeparateVm {
  readonly vm: GuestVm;
  readonly backends: readonly Program[];
  readonly socketPaths: readonly string[];
  readonly qmp: string;
  glue: Program;
}

/** A guest with these PFs, each served by a backend of its own, all plugged by one glue. */
export async function startParts(pfs: readonly string[]): Promise<SeparateVm> {
  const folder = mkdtempSync('/tmp/parts-');
  const qmp = `${folder}/qmp0`;
  const socketPaths = pfs.map((_, index) => `${folder}/pf${index}`);
  const backends = pfs.map((pf, index) => {
    const sockets = [`--socket-path=${socketPaths[index]}`, `--vf-sockets=${folder}/vfs${index}`];
    const log = ['--log-level=debug', '--log-format=json'];
    return new Program([
      process.execPath,
      CLI,
      'serve',
      `--pf=${pf}`,
      `--total-vfs=${VFS}`,
      ...sockets,
      ...log,
    ]);
  });
  const ready = await Promise.all(backends.map((backend) => backend.said(/^ready .*$/m)));
  const devices = ready.flatMap((line, index) => {
    const args = [
      '--ready',
      line,
      '--index',
      String(index),
      '--qmp',
      `${folder}/qmp${index}`,
      `--vf-memory=${VF_MEMORY}`,
      '--json',
    ];
    return JSON.parse(cli('qemu-args', ...args)) as string[];
  });
  const vm = await GuestVm.start({
    command: 'qemu-system-x86_64',
    args: [...qemuArguments(), ...devices],
  });
  await waitForGuest(vm);
  const glue = await startGlue(qmp, socketPaths);
  return { vm, backends, socketPaths, qmp, glue };
}

/** A glue for a QEMU that runs. */
export async function startGlue(qmp: string, socketPaths: readonly string[]): Promise<Program> {
  const paths = socketPaths.map((path) => `--socket-path=${path}`);
  const log = ['--log-level=debug', '--log-format=json'];
  const glue = new Program([
    process.execPath,
    CLI,
    'attach-qemu',
    `--qmp=${qmp}`,
    ...paths,
    ...log,
  ]);
  await glue.said(/"attached"/);
  return glue;
}

/** Ends everything in good order. */
export async function endParts({ vm, backends, glue }: SeparateVm): Promise<void> {
  await vm.kill();
  for (const program of [glue, ...backends]) {
    if (!program.hasEnded) {
      await program.kill('SIGTERM');
    }
  }
}
