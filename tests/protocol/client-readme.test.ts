// The client library's README: its sample runs, as a program that depends on the package would run it.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

it('uses a loopback device as its sample does, to the interrupt', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'readme-'));
  const path = join(folder, 'pf.sock');
  // Inside the package, so that it finds itself by name.
  const program = join(ROOT, 'dist', `readme-sample-${process.pid}.mjs`);
  const text = readFileSync(join(ROOT, 'vmm-glue/client/README.md'), 'utf8');
  const [sample = ''] = /(?<=```ts\n)[\s\S]*?(?=\nif \(pf.hasHotplug\))/.exec(text) ?? [];
  writeFileSync(
    program,
    `${sample.replace('/tmp/pf.sock', path)}\nconsole.log(ids); line.close(); pf.close();`,
  );
  const serve = [join(ROOT, 'dist/cli.js'), 'serve', '--loopback', `--socket-path=${path}`];
  const backend = spawn(process.execPath, serve, { stdio: ['ignore', 'pipe', 'ignore'] });
  try {
    await once(backend.stdout, 'data');
    const run = spawn(process.execPath, [program], { stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    run.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    const timer = setTimeout(() => run.kill(), 10_000);
    const [code] = await once(run, 'close');
    clearTimeout(timer);
    expect({ code, output }).toMatchObject({ code: 0, output: expect.stringContaining('15, 29') });
  } finally {
    backend.kill();
    await once(backend, 'exit');
    rmSync(program);
    rmSync(folder, { recursive: true });
  }
});
