// The text of a report: one file for a bug report, made of what the other commands tell. Pure; commands/report.ts gathers.
import { printable } from '../../protocol/printable.ts';
import type { KernelPicture } from './kernel.ts';
import { redacted } from './redaction.ts';

export interface ReportOptions {
  readonly versions: Readonly<Record<string, string>>;
  readonly kernel: KernelPicture;
  /** What `doctor --json` prints. */
  readonly doctor: unknown;
  /** What `probe --json` prints, or why nobody looked. */
  readonly probe: unknown;
  /** What `status --json` prints, of each backend that runs. */
  readonly status: readonly unknown[];
  /** Of this host and of this user: they are left out. */
  readonly names: readonly string[];
}

const HEAD = `vfio-user-sriov report, version 1

Read it before you hand it on.`;

export function reportText({
  versions,
  kernel,
  doctor,
  probe,
  status,
  names,
}: ReportOptions): string {
  const sections: [string, readonly string[]][] = [
    [
      'Versions',
      Object.entries({
        ...versions,
        kernel: kernel.release,
        distribution: kernel.distribution,
        'kernel parameters': kernel.parameters.join(' ') || 'none that matter',
      }).map(([what, version]) => `${what}: ${version}`),
    ],
    ['doctor', [json(doctor)]],
    ['probe', [json(probe)]],
    ['status', status.length === 0 ? ['no backend of this user runs'] : status.map(json)],
    ['Kernel log', kernel.log],
  ];
  const body = sections
    .map(([title, lines]) => `== ${title}\n\n${lines.map(shown).join('\n')}\n`)
    .join('\n');
  const { text, removed } = redacted(body, names);
  const taken = [...removed].map(([what, count]) => `${what}: ${count}`);
  return `${HEAD}\n\n${text}\n== Left out\n\n${[
    'config space beyond IDs and shapes, other kernel parameters, other lines of the kernel log, command lines of processes',
    ...taken,
  ].join('\n')}\n`;
}

function json(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value, null, 2);
}

/** Line ends are ours; what else moves a cursor is somebody's. */
function shown(text: string): string {
  return text.split('\n').map(printable).join('\n');
}
