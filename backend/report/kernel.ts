// What a kernel says of itself that bears on SR-IOV: version, the parameters it was booted with, and lines of its log.
// Reads only. Called by commands/report.ts.
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { promisify } from 'node:util';

export interface KernelPicture {
  /** `6.12.107+deb13-amd64` */
  readonly release: string;
  /** PRETTY_NAME of os-release. */
  readonly distribution: string;
  /** Those that matter, such as `intel_iommu=on`; the others stay here. */
  readonly parameters: readonly string[];
  /** The last ones, or why there are none. */
  readonly log: readonly string[];
}

/** Others name disks, keys and consoles. */
const PARAMETERS =
  /^(intel_iommu|amd_iommu|iommu[.=]?|pci[.=]?|pcie_|vfio|hugepages|default_hugepagesz|isolcpus|nohz_full)/;
/** A network card tells addresses and links, a disk its serial number: neither is among these. */
const LINES =
  /vfio|iommu|\bDMAR\b|AMD-Vi|sr-?iov|virtual function|pcieport|\bAER\b|\bACS\b|BAR \d+|VF BAR/i;
const MOST_LINES = 300;
const DMESG_MILLISECONDS = 5000;

export async function kernelPicture(pf: string | undefined): Promise<KernelPicture> {
  return {
    release: release(),
    distribution: /^PRETTY_NAME="?([^"\n]*)/m.exec(textOf('/etc/os-release'))?.[1] ?? 'unknown',
    parameters: textOf('/proc/cmdline')
      .trim()
      .split(/\s+/)
      .filter((word) => PARAMETERS.test(word)),
    log: await kernelLines(pf),
  };
}

/** Of the log, what bears on the matter, or names the PF. Pure. */
export function linesThatMatter(log: string, pf: string | undefined): string[] {
  const lines = log.split('\n');
  return lines
    .filter((line) => LINES.test(line) || (pf !== undefined && line.includes(pf)))
    .slice(-MOST_LINES);
}

async function kernelLines(pf: string | undefined): Promise<string[]> {
  try {
    const { stdout } = await promisify(execFile)('dmesg', [], {
      timeout: DMESG_MILLISECONDS,
      maxBuffer: 64 * 2 ** 20,
    });
    return linesThatMatter(stdout, pf);
  } catch (error) {
    const said = (error as { stderr?: string }).stderr?.trim();
    return [`not readable (${said || (error as Error).message}): run \`report\` as root for them`];
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
