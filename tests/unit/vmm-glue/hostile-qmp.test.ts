// A QMP server that is none, or means harm: attaching ends, soon, and with an error that says what came.
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { QemuGlue } from '../../../vmm-glue/qemu/glue.ts';
import { FakeBackend } from '../../fakes/hotplug-backend.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';
import { LOG, PF } from './glue-rig.ts';

const GREETING = '{"QMP": {"version": {}, "capabilities": []}}\n';
const OK = '{"return": {}}\n';
const TARGET = { arch: 'x86_64' };
/** Commands come one at a time, as long as the answers do. */
type Answer = (command: { execute: string; arguments?: Record<string, string> }) => string;

let folder: string;
let path: string;
let server: Server | undefined;
const sockets = new Set<Socket>();

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'hostile-'));
  path = join(folder, 'qmp');
});

afterEach(async () => {
  for (const socket of sockets) {
    socket.destroy();
  }
  await new Promise((resolve) => server?.close(resolve));
  rmSync(folder, { recursive: true });
});

async function listen(greeting: string, answer: Answer): Promise<void> {
  server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    socket.write(greeting);
    let text = '';
    socket.on('data', (chunk) => {
      const lines = (text + chunk).split('\n');
      text = lines.pop()!;
      for (const line of lines) {
        socket.write(answer(JSON.parse(line)));
      }
    });
  });
  await new Promise<void>((resolve) => server!.listen(path, resolve));
}

const attach = (options: Partial<Parameters<typeof QemuGlue.start>[0]> = {}): Promise<QemuGlue> =>
  QemuGlue.start({
    qmpPath: path,
    socketPaths: [PF],
    log: LOG,
    connectBackend: async () => new FakeBackend(),
    ...options,
  });

/** Answers `query-status` so, and all else as a QEMU does that has no devices. */
const onStatus =
  (text: string): Answer =>
  ({ execute }) => {
    const target = `${JSON.stringify({ return: TARGET })}\n`;
    return { 'query-status': `${text}\n`, 'query-target': target }[execute] ?? OK;
  };

describe('what is no message of QEMU’s ends the connection', () => {
  it.each([
    ['an id that is no number', '{"return": {}, "id": {"toString": 1}}'],
    ['an error without words', '{"error": {"class": {"toString": 1}, "desc": 1}}'],
    ['an event without a name', '{"event": {"toString": 1}}'],
    ['null', 'null'],
    ['a list', '[]'],
    ['an object that says nothing', '{}'],
    ['no JSON', '\u0000\u0001}'],
    ['a million brackets', '['.repeat(1_000_000)],
  ])('%s', async (_, line) => {
    await listen(GREETING, onStatus(line));
    await expect(attach()).rejects.toThrow('is not QMP');
  });

  it('a line without an end', async () => {
    await listen('x'.repeat(9 * 1024 * 1024), () => '');
    await expect(attach()).rejects.toThrow('sends no lines');
  });
});

it('an event with a time that is none is an event all the same', async () => {
  const event = '{"event": "STOP", "timestamp": {"seconds": {"toString": 1}}}';
  await listen(GREETING, onStatus(`${event}\n{"return": {"status": "paused", "running": false}}`));
  await expect(attach()).rejects.toThrow('qom-list');
});

describe('an answer of another shape is an error that shows it', () => {
  const running = '{"return": {"status": "running", "running": true}}\n';
  const tree =
    (given: Record<string, unknown>): Answer =>
    ({ execute, arguments: args = {} }) => {
      const answers: Record<string, unknown> = { 'query-target': TARGET, ...given };
      const value = answers[args.path ?? args.property ?? execute] ?? answers[execute];
      return execute === 'query-status' ? running : `${JSON.stringify({ return: value ?? {} })}\n`;
    };
  const devices = [{ name: 'sriov-pf0', type: 'child<vfio-user-pci>' }];

  it.each([
    ['query-status', onStatus('{"return": {"status": {"toString": 1}, "running": true}}')],
    ['query-target', tree({ 'query-target': { arch: { toString: 1 } } })],
    ['qom-list', tree({ 'qom-list': [{ name: { toString: 1 }, type: 'x' }] })],
    ['qom-list', tree({ 'qom-list': { length: 1 } })],
    ['qom-get', tree({ '/machine/peripheral': devices, 'qom-get': { valueOf: 1 } })],
  ])('of %s', async (command, answer) => {
    await listen(GREETING, answer);
    await expect(attach()).rejects.toThrow(`QMP ${command}: QEMU answered`);
  });

  it('a bus behind itself, or behind ever more, ends the search', async () => {
    let buses = 0;
    const parents = [() => '/machine/peripheral/a/b', () => `/machine/peripheral/a/b${buses++}`];
    for (const parent of parents) {
      await listen(GREETING, ({ execute, arguments: args = {} }) => {
        if (execute === 'qom-list') {
          const list = args.path === '/machine/peripheral' ? devices : [];
          return `${JSON.stringify({ return: list })}\n`;
        }
        if (execute === 'query-target') {
          return `${JSON.stringify({ return: TARGET })}\n`;
        }
        const value = args.property === 'addr' ? 8 : parent();
        return execute === 'qom-get' ? `${JSON.stringify({ return: value })}\n` : running;
      });
      await expect(attach()).rejects.toThrow('a bus behind itself');
      for (const socket of sockets) {
        socket.destroy();
      }
      await new Promise((resolve) => server?.close(resolve));
    }
    expect(buses).toBeLessThan(1000);
  });
});

describe('attaching can be given up', () => {
  it('while QEMU says nothing at all', async () => {
    await listen('', () => '');
    const giveUp = new AbortController();
    const attaching = attach({ signal: giveUp.signal });
    giveUp.abort(new Error('enough'));
    await expect(attaching).rejects.toThrow('enough');
  });

  it('while nobody has opened the socket yet', async () => {
    const giveUp = new AbortController();
    const attaching = attach({ signal: giveUp.signal, patienceMilliseconds: 60_000 });
    giveUp.abort(new Error('enough'));
    await expect(attaching).rejects.toThrow('enough');
    await listen('', () => '');
  });

  it('while it waits for an answer', async () => {
    const giveUp = new AbortController();
    await listen(GREETING, ({ execute }) => {
      if (execute !== 'query-status') {
        return OK;
      }
      giveUp.abort(new Error('enough'));
      return '';
    });
    await expect(attach({ signal: giveUp.signal })).rejects.toThrow('enough');
  });

  it('and gives itself up where each answer comes, but all of them take too long', async () => {
    const clock = new ManualClock();
    const answers = slowAnswers(clock);
    await listen(GREETING, ({ execute, arguments: args = {} }) =>
      answers(args.property ?? execute),
    );
    await expect(attach({ clock })).rejects.toThrow('attaching took longer than 60 s');
  });
});

/** Of a QEMU that has a hundred devices, and takes 4.9 s for each answer. */
function slowAnswers(clock: ManualClock): (asked: string) => string {
  const devices = Array.from({ length: 100 }, (_, at) => `f${at}`);
  const answers: Record<string, unknown> = {
    'query-status': { status: 'running', running: true },
    'query-target': TARGET,
    'qom-list': devices.map((name) => ({ name, type: 'child<vfio-user-pci>' })),
    addr: 8,
    parent_bus: '/machine/q35/pcie.0',
  };
  return (asked) => {
    clock.elapse(4_900);
    return `${JSON.stringify({ return: answers[asked] ?? {} })}\n`;
  };
}
