// `serve --device=FILE`: cards of somebody's own, good ones and bad ones, as a client sees them.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { loadUint, storeUint } from '../../protocol/little-endian.ts';
import { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { BY_A_PROGRAM } from '../patience.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const CLI = join(ROOT, 'dist/cli.js');
const QEMU = fileURLToPath(new URL('../fakes/qemu-program.mjs', import.meta.url));
const MEMORY = 'memory-backend-memfd,id=m,size=1G,share=on';
const EXAMPLE = join(ROOT, 'examples/my-card/my-card.ts');

let folder: string;
let child: ChildProcess;
let log: Promise<string>;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'own-card-'));
});
afterEach(() => {
  child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

function serve(
  file: string,
  { more = [], env = {} }: { more?: readonly string[]; env?: NodeJS.ProcessEnv } = {},
): string {
  const path = join(folder, 'pf.sock');
  const args = [CLI, 'serve', `--device=${file}`, `--socket-path=${path}`, ...more];
  child = spawn(process.execPath, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  log = text(child.stderr!);
  return path;
}

async function connect(file: string, ...more: string[]): Promise<VfioUserClient> {
  const path = serve(file, { more });
  await once(child.stdout!, 'data');
  return VfioUserClient.connect(path);
}

async function get(client: VfioUserClient, offset: number): Promise<number> {
  return loadUint(await client.readRegion(0, offset, 4), 0, 4);
}

async function set(client: VfioUserClient, offset: number, value: number): Promise<void> {
  const bytes = new Uint8Array(4);
  storeUint(bytes, 0, 4, value);
  await client.writeRegion(0, offset, bytes);
}

/** A card whose trapped page does what `body` says. */
function card(body: string, functions = ''): string {
  const file = join(folder, 'card.ts');
  writeFileSync(
    file,
    `import { defineDevice, type FunctionPort, memoryBar, trapped } from 'vfio-user-sriov/device';
${functions}const shape = {
  bars: [memoryBar(0, 4096, [trapped(0, 4096)])],
  create: (port: FunctionPort) => ({ ${body} }) as object,
};
export default defineDevice({
  name: 'card', vendorId: 1, deviceId: 2, vfDeviceId: 3, classCode: 0, totalVfs: 1, pf: shape, vf: shape,
});
`,
  );
  return file;
}

describe('the example', () => {
  it('is served: registers, a doorbell, a mailbox to oneself, each by its name in a trace', async () => {
    const trace = join(folder, 'trace');
    const client = await connect(EXAMPLE, `--trace=${trace}`, '--trace-size=1M');
    expect([await get(client, 0), await get(client, 4)]).toEqual([0x44524143, 0]);
    await set(client, 8, 1);
    await set(client, 8, 1);
    expect(await get(client, 0xc)).toBe(2);
    await set(client, 0x10, 0xabcd);
    await set(client, 0x14, 0);
    expect([await get(client, 0x18), await get(client, 0x14)]).toEqual([0xabcd, 0]);
    await set(client, 0x14, 3);
    expect(await get(client, 0x14)).toBe(0x8000_0003);
    client.close();
    const { stdout } = spawnSync(process.execPath, [CLI, 'trace', trace, '--only=accesses'], {
      encoding: 'utf8',
    });
    expect(stdout).toMatch(/pf +W Doorbell +0x00000001\n/);
    expect(stdout).toMatch(/pf +R Mailbox Send +0x80000003 {2}to 3, failed 1\n$/);
  });
});

describe('a card that', () => {
  it('throws is answered as by nobody, logged with its line, and goes on', async () => {
    const client = await connect(
      card("readTrapped() { throw new Error('no such register'); }, writeTrapped() {}"),
    );
    expect(await get(client, 0x20)).toBe(0xffff_ffff);
    await set(client, 0x20, 1);
    expect(await get(client, 0x20)).toBe(0xffff_ffff);
    client.close();
    child.kill('SIGTERM');
    expect(await log).toMatch(
      /card, pf: read of 4 bytes at 0x20 of BAR 0 failed: Error: no such register.*card\.ts:4/,
    );
  });

  it('loops ends the backend, which says where it was', async () => {
    const client = await connect(
      card('writeTrapped: countForEver', 'function countForEver() { for (;;) {} }\n'),
    );
    const exit = once(child, 'exit');
    // Nobody will answer.
    void set(client, 0, 1).catch(() => {});
    expect(await exit).toEqual([1, null]);
    const lines = await log;
    expect(lines).toMatch(/it is at.*countForEver \(\/.*\/card\.ts:2:\d+\)/);
    expect(lines).toContain('has not returned for 1000 ms, and this backend ends');
    client.close();
  });

  it('loops ends the VM as well, where a launcher started both', async () => {
    const path = join(folder, 'pf.sock');
    chmodSync(QEMU, 0o755);
    const file = card('writeTrapped() { for (;;) {} }');
    const shared = ['-machine', 'q35,memory-backend=m', '-object', MEMORY];
    const args = [CLI, 'qemu', `--device=${file}`, `--socket-path=${path}`, '--', QEMU, ...shared];
    const notes = join(folder, 'qemu');
    const env = { ...process.env, FAKE_QEMU_NOTES: notes };
    child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'], env });
    log = text(child.stderr!);
    const exit = once(child, 'exit');
    await vi.waitFor(() => expect(readFileSync(notes, 'utf8')).toContain('true'), BY_A_PROGRAM);
    const client = await VfioUserClient.connect(path);
    void set(client, 0, 1).catch(() => {});
    expect(await exit).toEqual([1, null]);
    expect(await log).toContain('has not returned for 1000 ms, and this backend ends');
    const { pid } = JSON.parse(readFileSync(notes, 'utf8')) as { pid: number };
    expect(existsSync(`/proc/${pid}`)).toBe(false);
    client.close();
  });

  it.each([
    [
      'loops while it is loaded',
      '\nwhile (true) {}',
      /^vfio-user-sriov: --device=.*card\.ts: it is not loaded after 5000 ms \(at card\.ts:2:\d+\); let nothing/,
    ],
    [
      'waits without an end while it is loaded',
      'await new Promise(() => setInterval(() => {}, 1000));',
      /card\.ts: it is not loaded after 5000 ms; let nothing/,
    ],
    [
      'waits for what never comes while it is loaded',
      'await new Promise(() => {});',
      /card\.ts: it ends by itself while it is loaded, with code 13; let nothing/,
    ],
    [
      'exits while it is loaded',
      'process.exit(0);',
      /card\.ts: it ends by itself while it is loaded, with code 0; let nothing/,
    ],
  ])('%s ends the backend, which says so in one line', async (_, source, message) => {
    const file = join(folder, 'card.ts');
    writeFileSync(file, source);
    serve(file);
    expect(await once(child, 'exit')).toEqual([1, null]);
    expect((await log).trim()).toMatch(message);
    expect((await log).trim().split('\n')).toHaveLength(1);
  });

  it.each([
    ['is examined', 'true'],
    ['is loaded on the device thread', "existsSync('seen')"],
  ])('loops when it %s does not keep a backend that is asked to end', async (_, when) => {
    const begun = join(folder, 'begun');
    const seen = JSON.stringify(join(folder, 'seen'));
    const source = `import { existsSync, writeFileSync } from 'node:fs';
if (${when.replace("'seen'", seen)}) {
  writeFileSync(${JSON.stringify(begun)}, '');
  for (;;) {}
}
writeFileSync(${seen}, '');
`;
    const temporary = join(folder, 'temporary');
    mkdirSync(temporary);
    serve(card('', source), { env: { TMPDIR: temporary } });
    const exit = once(child, 'exit');
    const output = text(child.stdout!);
    await vi.waitFor(() => expect(existsSync(begun)).toBe(true), BY_A_PROGRAM);
    const asked = performance.now();
    child.kill('SIGINT');
    expect(await exit).toEqual([0, null]);
    expect(performance.now() - asked).toBeLessThan(2000);
    expect([await output, await log]).toEqual(['', '']);
    expect(readdirSync(temporary)).toEqual([]);
  });

  it('loops when it is loaded on the device thread ends the backend, which says where it was', async () => {
    const seen = JSON.stringify(join(folder, 'seen'));
    serve(
      card(
        '',
        `import { existsSync, writeFileSync } from 'node:fs';
while (existsSync(${seen})) {}
writeFileSync(${seen}, '');
`,
      ),
    );
    expect(await once(child, 'exit')).toEqual([1, null]);
    const lines = await log;
    expect(lines).toMatch(/it is at.*\/card\.ts:3:\d+/);
    expect(lines).toContain('has not returned for 5000 ms, and this backend ends');
  });

  it('exits ends the backend, which says so', async () => {
    const client = await connect(card('writeTrapped() { process.exit(0); }'));
    const exit = once(child, 'exit');
    void set(client, 0, 1).catch(() => {});
    expect(await exit).toEqual([1, null]);
    const [line = '', lastWord] = (await log).split('\n');
    expect(JSON.parse(line)).toMatchObject({
      level: 50,
      msg: 'the device thread has ended by itself, and so does this backend',
    });
    expect(lastWord).toMatch(
      /^vfio-user-sriov: the device thread has ended by itself, with code 0; /,
    );
    client.close();
  });

  it('spoils what the device thread stands on ends the backend, which says so', async () => {
    const spoil = `performance.now = () => { throw new Error('spoiled by a card'); };`;
    const client = await connect(card(`writeTrapped() { ${spoil} }`));
    const exit = once(child, 'exit');
    void set(client, 0, 1).catch(() => {});
    expect(await exit).toEqual([1, null]);
    const [line = '', lastWord] = (await log).trim().split('\n').slice(-2);
    expect(JSON.parse(line)).toMatchObject({
      level: 50,
      msg: 'the device thread has failed, and this backend ends',
    });
    expect(lastWord).toMatch(
      /^vfio-user-sriov: a fault of this program: .*spoiled by a card.*; please report it$/,
    );
    client.close();
  });

  it('is an object of classes keeps what the class has, also in the clothes of another card', async () => {
    const file = join(folder, 'card.ts');
    writeFileSync(
      file,
      `import { memoryBar, trapped } from 'vfio-user-sriov/device';
class Half {
  bars = [memoryBar(0, 4096, [trapped(0, 4096)])];
  create(port, shared) { return { readTrapped: (bar, offset, into) => into.set(shared) }; }
}
class Card {
  name = 'card'; vendorId = 1; deviceId = 2; vfDeviceId = 3; classCode = 0;
  pf = new Half(); vf = new Half();
  get totalVfs() { return 1; }
  share() { return new Uint8Array([0x4d]); }
}
export default new Card();
`,
    );
    const profile = join(ROOT, 'examples/profiles/qemu-nvme.json');
    for (const more of [[], [`--profile=${profile}`]]) {
      const client = await connect(file, ...more);
      expect(await get(client, 0)).toBe(0x4d);
      client.close();
      child.kill('SIGKILL');
    }
  });

  it('is CommonJS finds its modules, and what lies beside it', async () => {
    const beside = join(folder, 'it’s # 100% a folder');
    mkdirSync(beside);
    writeFileSync(join(beside, 'rom.bin'), 'ROM!');
    const file = join(beside, 'card.cjs');
    writeFileSync(
      file,
      `const { defineDevice, memoryBar, trapped } = require('vfio-user-sriov/device');
const rom = require('fs').readFileSync(__dirname + '/rom.bin');
const shape = {
  bars: [memoryBar(0, 4096, [trapped(0, 4096)])],
  create: () => ({ readTrapped: (bar, offset, into) => into.set(rom) }),
};
module.exports = defineDevice({
  name: 'card', vendorId: 1, deviceId: 2, vfDeviceId: 3, classCode: 0, totalVfs: 1, pf: shape, vf: shape,
});
`,
    );
    const client = await connect(file);
    expect(await get(client, 0)).toBe(0x214d4f52);
    client.close();
  });

  it('prints does so where nobody waits for the ready line', async () => {
    const client = await connect(card('', "console.log('hello');\n"));
    client.close();
    child.kill('SIGTERM');
    expect(await log).toContain('hello');
  });

  it('leaves a timer of Node’s behind is told of its end, and ends', async () => {
    const client = await connect(
      card("close() { port.log('warn', 'closing'); }", 'setInterval(() => {}, 1000);\n'),
    );
    client.close();
    const exit = once(child, 'exit');
    child.kill('SIGTERM');
    expect(await exit).toEqual([0, null]);
    expect(await log).toContain('card, pf: closing');
  });

  it('loops in an exit handler of its own does not keep a backend that is asked to end', async () => {
    const hook = "process.on('exit', () => { for (;;) {} });";
    const client = await connect(card(`readTrapped() { ${hook} }`));
    await get(client, 0);
    client.close();
    const exit = once(child, 'exit');
    child.kill('SIGTERM');
    expect(await exit).toEqual([0, null]);
  });

  it('is a pipe is refused, and not waited for', async () => {
    const file = join(folder, 'card.ts');
    spawnSync('mkfifo', [file]);
    serve(file);
    expect(await once(child, 'exit')).toEqual([1, null]);
    expect((await log).trim()).toBe(
      `vfio-user-sriov: --device=${file}: it is not a regular file; name a TypeScript or JavaScript file`,
    );
  });

  it('cannot be read in a file that it imports is told which', async () => {
    writeFileSync(join(folder, 'part.ts'), 'export const = 1;');
    serve(card('', "import './part.ts';\n"));
    expect(await once(child, 'exit')).toEqual([1, null]);
    expect(await log).toMatch(/card\.ts: .*part\.ts, line 1, column 14: /);
  });

  it.each([
    [
      'throws while the PF is made',
      'export default { ...card, pf: { ...shape, create() { throw new Error("no"); } } };',
      /card\.ts: it throws when the PF is made: Error: no \(at card\.ts:6:\d+\); mend it$/m,
    ],
    [
      'gives a promise for the PF',
      'export default { ...card, pf: { ...shape, async create() { return {}; } } };',
      /card\.ts: it throws when the PF is made: TypeError: create returned a promise; .*for what comes later; mend it$/m,
    ],
    [
      'throws while what is shared is made',
      'export default { ...card, share() { throw new Error("no"); } };',
      /card\.ts: it throws when the PF is made: Error: no \(at card\.ts:6:\d+\); mend it$/m,
    ],
  ])('%s is refused in one line that names the place', async (_, last, message) => {
    const file = join(folder, 'card.ts');
    writeFileSync(
      file,
      `import { memoryBar } from 'vfio-user-sriov/device';
const shape = { bars: [memoryBar(0, 4096, [])], create: () => ({}) };
const card = {
  name: 'card', vendorId: 1, deviceId: 2, vfDeviceId: 3, classCode: 0, totalVfs: 1, pf: shape, vf: shape,
};
${last}
`,
    );
    serve(file);
    expect(await once(child, 'exit')).toEqual([1, null]);
    expect((await log).trim()).toMatch(message);
    expect((await log).trim().split('\n')).toHaveLength(1);
  });

  it.each([
    [
      'misdeclares',
      'export default { name: "x" };',
      /: vendorId must be a whole number.*card\.ts$/m,
    ],
    ['exports nothing', 'export const a = 1;', /: default export must be what defineDevice/],
    [
      'exports a promise',
      'export default Promise.resolve({});',
      /: default export must be what defineDevice/,
    ],
    ['is no TypeScript', 'const = 1;', /card\.ts: line 1, column 7: /],
    ['throws while it is loaded', '\nthrow new Error("no");', /no.*card\.ts:2:7/],
  ])('%s is refused in one line that names file and cause', async (_, source, message) => {
    const file = join(folder, 'card.ts');
    writeFileSync(file, source);
    serve(file);
    expect(await once(child, 'exit')).toEqual([1, null]);
    expect(await log).toMatch(message);
    expect((await log).trim().split('\n')).toHaveLength(1);
  });
});
