// The launcher with programs that look like a backend and a QEMU: who starts, who ends whom, with which status.

import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { SILENT } from '../../../protocol/log.ts';
import { processClock } from '../../../protocol/unix/process-clock.ts';
import { type LaunchOptions, launch } from '../../../vmm-glue/qemu/launch.ts';
import { BY_A_PROGRAM } from '../../patience.ts';

const fake = (name: string): string =>
  fileURLToPath(new URL(`../../fakes/${name}`, import.meta.url));
const SHARED = ['-machine', 'q35,memory-backend=m', '-object', 'memory-backend-memfd,id=m,size=1G'];
const LOG = { ...SILENT, error: vi.fn(), warn: vi.fn(), info: vi.fn() };
const DEVICES = 'name "vfio-user-pci", bus PCI\nname "pxb-pcie", bus PCI';

interface Notes {
  pid: number;
  args: string[];
  isRunning?: boolean;
  monitors?: number;
  isAsked?: boolean;
  endedBy?: string;
}

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'launch-'));
  chmodSync(fake('qemu-program.mjs'), 0o755);
  vi.stubEnv('FAKE_QEMU_NOTES', join(folder, 'qemu'));
  vi.stubEnv('FAKE_BACKEND_NOTES', join(folder, 'backend'));
  LOG.error.mockClear();
  LOG.warn.mockClear();
  LOG.info.mockClear();
});

afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

const start = (changes: Partial<LaunchOptions> = {}): Promise<number> =>
  launch({
    backendCommand: [process.execPath, fake('backend-program.mjs')],
    backendArguments: ['--loopback', '--total-vfs=2'],
    topology: 'root-port',
    qemu: [fake('qemu-program.mjs'), ...SHARED],
    log: LOG,
    clock: processClock,
    ...changes,
  });

const notes = (of: 'qemu' | 'backend'): Notes =>
  JSON.parse(readFileSync(join(folder, of), 'utf8')) as Notes;

const guestRuns = (): Promise<void> =>
  vi.waitFor(() => expect(notes('qemu').isRunning).toBe(true), BY_A_PROGRAM);

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe('a launch', () => {
  it('starts the backend, then QEMU with its devices, then the guest, and ends with QEMU’s status', async () => {
    vi.stubEnv('FAKE_QEMU_EXIT', '7');
    expect(await start()).toBe(7);
    const [backend, qemu] = [notes('backend'), notes('qemu')];
    expect(backend.args.slice(0, 2)).toEqual(['--loopback', '--total-vfs=2']);
    expect(qemu.args.slice(0, SHARED.length)).toEqual(SHARED);
    const ids = qemu.args.filter((each) => each.startsWith('{')).map((each) => JSON.parse(each).id);
    expect(ids).toEqual(['sriov-port0', 'sriov-pf0', 'sriov-pf0-vf0', 'sriov-pf0-vf1']);
    expect(qemu).toMatchObject({ isRunning: true });
    expect(backend.endedBy).toBe('SIGTERM');
  });

  it('maps VFs where QEMU can, unless they are to be trapped', async () => {
    vi.stubEnv('FAKE_QEMU_EXIT', '0');
    vi.stubEnv('FAKE_QEMU_DEVICES', DEVICES);
    await start();
    expect(notes('qemu').args.join()).toContain('"driver":"pxb-pcie"');
    await start({ vfMemory: 'trapped' });
    expect(notes('qemu').args.join()).not.toContain('pxb-pcie');
    expect(`${LOG.info.mock.calls}${LOG.warn.mock.calls}`).not.toContain('stay trapped');
  });

  it('leaves VFs trapped where QEMU cannot map them, and says why: loudly where that was asked for', async () => {
    vi.stubEnv('FAKE_QEMU_EXIT', '0');
    const said = 'VFs stay trapped: this QEMU was built without the device pxb-pcie';
    await start();
    expect(LOG.info.mock.calls.flat()).toContain(said);
    expect(LOG.warn.mock.calls.flat()).not.toContain(said);
    await start({ vfMemory: 'mapped' });
    expect(LOG.warn.mock.calls.flat()).toContain(said);
    expect(notes('qemu').args.join()).not.toContain('pxb-pcie');
  });

  it('maps them in a virt by ports on its root bus', async () => {
    vi.stubEnv('FAKE_QEMU_EXIT', '0');
    await start({ qemu: [fake('qemu-program.mjs'), ...SHARED, '-machine', 'virt'] });
    const args = notes('qemu').args.join();
    expect(args).toContain('"id":"sriov-carriers0-port0","bus":"pcie.0"');
    expect(args).not.toContain('pxb-pcie');
  });

  it('leaves VFs trapped beside an expander bus of the user’s', async () => {
    vi.stubEnv('FAKE_QEMU_EXIT', '0');
    vi.stubEnv('FAKE_QEMU_DEVICES', DEVICES);
    const own = ['-device', '{"driver":"pxb-pcie","id":"own","bus_nr":64}'];
    await start({ qemu: [fake('qemu-program.mjs'), ...SHARED, ...own] });
    expect(notes('qemu').args.join()).not.toContain('sriov-carriers0');
    expect(LOG.info.mock.calls.join()).toContain('an expander bus of its own');
  });

  it('leaves neither processes nor its folder behind', async () => {
    vi.stubEnv('FAKE_QEMU_EXIT', '0');
    expect(await start()).toBe(0);
    const socket = notes('backend').args.find((each) => each.startsWith('--socket-path='))!;
    expect(existsSync(dirname(socket.slice('--socket-path='.length)))).toBe(false);
    expect([notes('backend').pid, notes('qemu').pid].map(isAlive)).toEqual([false, false]);
  });

  it('uses the sockets that the user names, and the address', async () => {
    vi.stubEnv('FAKE_QEMU_EXIT', '0');
    const socketPath = join(folder, 'mine.sock');
    await start({ socketPath, vfSocketsFolder: join(folder, 'vfs'), busAddress: '7' });
    const { args } = notes('qemu');
    expect(args.join(' ')).toContain(`"path":"${socketPath}"`);
    expect(args.join(' ')).toContain(`"path":"${join(folder, 'vfs', 'vf1.sock')}"`);
    expect(args.join(' ')).toContain('"addr":"7.0"');
  });

  it('says how to ask what the backend is doing', async () => {
    vi.stubEnv('FAKE_QEMU_EXIT', '0');
    const info = vi.fn();
    const socketPath = join(folder, 'mine.sock');
    await start({ socketPath, log: { ...LOG, info } });
    expect(info.mock.calls.flat().join()).toContain(
      `vfio-user-sriov status --socket-path=${socketPath}`,
    );
  });

  it('works in a folder whose name has a comma, which ends a value in QEMU', async () => {
    vi.stubEnv('FAKE_QEMU_EXIT', '0');
    const odd = join(folder, 'a,b');
    mkdirSync(odd);
    vi.stubEnv('TMPDIR', odd);
    expect(await start()).toBe(0);
    const { args } = notes('qemu');
    expect(args[args.indexOf('-qmp') + 1]).toMatch(/^unix:[^,]+\/a,,b\/[^,]+,server=on,wait=off$/);
  });

  it('leaves a guest paused that the user wants paused', async () => {
    const info = vi.fn();
    const running = start({
      qemu: [fake('qemu-program.mjs'), '-S', ...SHARED],
      log: { ...LOG, info },
    });
    // The last that is said of a start, when a guest that may run does.
    await vi.waitFor(
      () => expect(info).toHaveBeenCalledWith(expect.stringContaining('to see what it is doing')),
      BY_A_PROGRAM,
    );
    expect(notes('qemu').isRunning).toBe(false);
    process.kill(notes('qemu').pid, 'SIGTERM');
    expect(await running).toBe(0);
  });
});

describe('the end of one', () => {
  it('ends QEMU when the backend dies, by whatever signal, and says why', async () => {
    const running = start();
    await guestRuns();
    process.kill(notes('backend').pid, 'SIGKILL');
    expect(await running).toBe(1);
    expect(isAlive(notes('qemu').pid)).toBe(false);
    expect(LOG.error.mock.calls.flat().join()).toContain('signal SIGKILL');
  });

  it('tells QEMU to end before the glue asks it for anything: it may wait for the dead backend, and answer nobody', async () => {
    const running = start();
    await guestRuns();
    process.kill(notes('backend').pid, 'SIGKILL');
    await running;
    expect(notes('qemu').monitors).toBe(1);
  });

  it('ends the backend when QEMU is killed, with the status of a signal', async () => {
    const running = start();
    await guestRuns();
    process.kill(notes('qemu').pid, 'SIGKILL');
    expect(await running).toBe(128 + 9);
    expect(notes('backend').endedBy).toBe('SIGTERM');
  });

  it('ends QEMU where no VFs can be plugged: that is a failure, however well QEMU ends', async () => {
    vi.stubEnv('FAKE_QEMU_EMPTY', '1');
    expect(await start()).toBe(1);
    expect(LOG.error.mock.calls.flat().join()).toContain('no VFs could be plugged');
  });

  it('passes signals on to QEMU, which decides', async () => {
    const running = start();
    await guestRuns();
    process.emit('SIGINT', 'SIGINT');
    expect(await running).toBe(3);
  });
});

describe('a signal', () => {
  it.each(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const)(
    '%s before there is a QEMU ends the start in good order',
    async (signal) => {
      vi.stubEnv('FAKE_BACKEND_SILENT', '1');
      const running = start();
      await vi.waitFor(() => expect(existsSync(join(folder, 'backend'))).toBe(true), BY_A_PROGRAM);
      process.emit(signal, signal);
      expect(await running).toBe(128 + constants.signals[signal]);
      expect(isAlive(notes('backend').pid)).toBe(false);
      expect(existsSync(join(folder, 'qemu'))).toBe(false);
    },
  );

  it('while QEMU is asked what it is ends that', async () => {
    vi.stubEnv('FAKE_QEMU_SLOW', '1');
    const running = start();
    await vi.waitFor(() => expect(existsSync(join(folder, 'backend'))).toBe(true), BY_A_PROGRAM);
    process.emit('SIGTERM', 'SIGTERM');
    expect(await running).toBe(128 + 15);
    expect(existsSync(join(folder, 'qemu'))).toBe(false);
  });

  it('while the glue still waits for QEMU ends both', async () => {
    vi.stubEnv('FAKE_QEMU_MUTE', '1');
    const running = start();
    await vi.waitFor(() => expect(existsSync(join(folder, 'qemu'))).toBe(true), BY_A_PROGRAM);
    process.emit('SIGTERM', 'SIGTERM');
    expect(await running).toBe(0);
    expect(notes('backend').endedBy).toBe('SIGTERM');
    expect(LOG.error).not.toHaveBeenCalled();
  });

  it('while the glue asks QEMU what it has is no failure to plug VFs', async () => {
    vi.stubEnv('FAKE_QEMU_HANGS_UP', '1');
    const running = start();
    await vi.waitFor(() => expect(notes('qemu').isAsked).toBe(true), BY_A_PROGRAM);
    process.emit('SIGTERM', 'SIGTERM');
    expect(await running).toBe(0);
    expect(LOG.error).not.toHaveBeenCalled();
  });
});

it.each([
  ['', true],
  ['-run-with [async-teardown=on|off]', false],
])('QEMU is to end with its parent, where it can (%s)', async (help, isTold) => {
  vi.stubEnv('FAKE_QEMU_EXIT', '0');
  vi.stubEnv('FAKE_QEMU_HELP', help || undefined);
  expect(await start()).toBe(0);
  expect(notes('qemu').args.includes('exit-with-parent=on')).toBe(isTold);
});

describe('VF BARs for which Linux may find no room', () => {
  const big = ['--loopback', '--total-vfs=2', '--vf-bar-bytes=1073741824'];

  const wide = [...SHARED, '-cpu', 'max,phys-bits=46'];

  it('are warned of with the fix', async () => {
    vi.stubEnv('FAKE_QEMU_EXIT', '0');
    await start({ backendArguments: big });
    expect(LOG.warn.mock.calls.flat().join()).toContain('-cpu qemu64,phys-bits=46');
  });

  it.each([
    ['on a processor with more address bits', big, wide],
    ['when they are small', ['--loopback'], SHARED],
    ['in a machine that is no PC', big, [...SHARED, '-machine', 'virt']],
  ])('are not spoken of %s', async (_, backendArguments, args) => {
    vi.stubEnv('FAKE_QEMU_EXIT', '0');
    await start({ backendArguments, qemu: [fake('qemu-program.mjs'), ...args] });
    expect(LOG.warn.mock.calls.flat().join()).not.toContain('address bits');
  });
});

describe('a launch is refused', () => {
  it('by a backend that does not start, with the status of the backend, which has said why', async () => {
    vi.stubEnv('FAKE_BACKEND_EXIT', '2');
    expect(await start()).toBe(2);
    expect(existsSync(join(folder, 'qemu'))).toBe(false);
  });

  it('when the backend is gone without a word', async () => {
    vi.stubEnv('FAKE_BACKEND_EXIT', '0');
    await expect(start()).rejects.toThrow('the backend did not start (exit status 0)');
  });

  it.each([
    ['10.0.2', 'QEMU 10.0: it knows no vfio-user devices; install QEMU 10.1 or later'],
    ['9.2.0', 'QEMU 9.2'],
  ])('with QEMU %s', async (version, message) => {
    vi.stubEnv('FAKE_QEMU_VERSION', version);
    await expect(start()).rejects.toThrow(message);
    expect(existsSync(join(folder, 'qemu'))).toBe(false);
  });

  it('with a QEMU that has no vfio-user-pci', async () => {
    vi.stubEnv('FAKE_QEMU_DEVICES', 'name "vfio-pci"');
    await expect(start()).rejects.toThrow('built without the device vfio-user-pci');
  });

  it('with a QEMU that fails when it is asked for its devices', async () => {
    vi.stubEnv('FAKE_QEMU_DEVICES_FAIL', 'libfoo.so.1: cannot open shared object file');
    await expect(start()).rejects.toThrow(/-device help: it failed with "libfoo.*status 127/);
  });

  it('with a program that is none, or no QEMU', async () => {
    await expect(start({ qemu: ['/no/qemu', ...SHARED] })).rejects.toThrow('no such program');
    await expect(start({ qemu: ['/bin/true', ...SHARED] })).rejects.toThrow('what QEMU it is');
  });

  it('with guest RAM that is not shared, before anything is started', async () => {
    const qemu = [fake('qemu-program.mjs'), '-machine', 'q35'];
    await expect(start({ qemu })).rejects.toThrow('memory-backend-memfd');
    expect(existsSync(join(folder, 'backend'))).toBe(false);
  });

  it('with a socket path that Linux does not take', async () => {
    await expect(start({ socketPath: `/${'x'.repeat(120)}` })).rejects.toThrow('107 bytes');
  });
});
