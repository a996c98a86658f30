// Resident memory of a backend whose guest has 7 VFs enabled and in use, beside a Node that does nothing.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { ReferenceVmm } from '../../vmm-glue/reference-vmm/reference-vmm.ts';
import { type Figure, rounded } from './figure.ts';
import { residentKibibytes, startBackend, startServer } from './server-process.ts';

const VFS = 7;
const READS_PER_FUNCTION = 2000;
const CONFIG_REGION = 7;

/** Figures resident-memory and resident-memory-baseline, MiB. */
export async function measureResidentMemory(folder: string): Promise<Figure[]> {
  const slots = join(folder, 'slots');
  mkdirSync(slots);
  const path = join(folder, 'memory.sock');
  const backend = await startBackend(path, [`--total-vfs=${VFS}`, `--vf-sockets=${slots}`]);
  const bare = await startServer(process.execPath, [
    '-e',
    'console.log("ready"); setInterval(() => {}, 1000)',
  ]);
  try {
    const vmm = await ReferenceVmm.start({ pf: path });
    const enabled = await vmm.enableVfs(VFS);
    for (const pciFunction of [vmm.pf, ...enabled]) {
      for (let i = 0; i < READS_PER_FUNCTION; i++) {
        await pciFunction.client.readRegion(CONFIG_REGION, 0, 256);
      }
    }
    const figures = [
      { ...mebibytes('resident-memory', backend.pid, { vfs: enabled.length }), limit: 90 },
      mebibytes('resident-memory-baseline', bare.pid, {}),
    ];
    await vmm.close();
    return figures;
  } finally {
    await backend.stop();
    await bare.stop();
  }
}

function mebibytes(figure: string, pid: number, details: Record<string, unknown>): Figure {
  const { total, anonymous, file } = residentKibibytes(pid);
  return {
    figure,
    value: rounded(total / 1024),
    unit: 'MiB',
    details: { ...details, anonymous: rounded(anonymous / 1024), file: rounded(file / 1024) },
  };
}
