// `npm run picture`: the picture that README opens with, drawn from a real run: a backend, a VM, and an enable of four VFs
// on a device that takes as long for it as a card does. Takes the path of the picture to write.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LoopbackDriver } from '../vmm-glue/reference-vmm/loopback-driver.ts';
import { ReferenceVmm } from '../vmm-glue/reference-vmm/reference-vmm.ts';
import { whenCutShort } from './clean-up.ts';
import { RunningCommand, run } from './command-line.ts';
import { argumentsOf } from './program-arguments.ts';

const USAGE = `usage: npm run picture [-- FILE]
Draws the picture that README opens with from a real run, into FILE (default: examples/enable.svg).
`;
const VFS = 4;
const MAKING_MILLISECONDS = 40;

const [picture = 'examples/enable.svg'] = argumentsOf(USAGE, 1);
const folder = mkdtempSync(join(tmpdir(), 'vfio-user-sriov-picture-'));
const socketPath = join(folder, 'pf.sock');
const trace = join(folder, 'pf.trace');
const backend = new RunningCommand(
  'serve',
  '--loopback',
  `--enable-delay=${MAKING_MILLISECONDS}`,
  `--socket-path=${socketPath}`,
  `--trace=${trace}`,
  '--trace-size=4M',
);
let vmm: ReferenceVmm | undefined;

async function cleanUp(): Promise<void> {
  vmm?.kill();
  await backend.stop();
  rmSync(folder, { recursive: true, force: true });
}

whenCutShort(cleanUp);
try {
  await backend.ready;
  vmm = await ReferenceVmm.start({ pf: socketPath });
  for (const vf of await vmm.enableVfs(VFS)) {
    await new LoopbackDriver(vf).probe();
  }
  await vmm.close();
  await run('trace', trace, `--svg=${picture}`);
  process.stdout.write(`${picture}\n`);
} finally {
  await cleanUp();
}
