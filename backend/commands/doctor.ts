// `doctor [--pf=…]`: looks a host over and prints each finding with its fix. Ends with 1 when there is a problem.
import { Command } from 'commander';
import { SILENT } from '../../protocol/log.ts';
import { printableJson } from '../../protocol/printable.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { linuxContext } from '../devices/vfio/linux-context.ts';
import { examine, type Finding } from '../devices/vfio/readiness/doctor.ts';
import { surveyHost } from '../devices/vfio/readiness/host-survey.ts';
import { pfOption } from './pf-option.ts';

const LABELS = { ok: 'ok      ', note: 'note    ', problem: 'PROBLEM ' } as const;

/** What `doctor --json` prints; examples/json-output.md describes it. */
export interface DoctorReport {
  readonly version: 1;
  /** The PFs that were looked at. */
  readonly pfs: readonly string[];
  readonly problems: number;
  readonly findings: readonly Finding[];
}

/** Looks at one PF, or at all there are. */
export async function doctorReport(pf: string | undefined): Promise<DoctorReport> {
  const picture = await surveyHost(
    linuxContext(SILENT, processClock),
    pf === undefined ? undefined : [pf],
  );
  const findings = examine(picture);
  return {
    version: 1,
    pfs: picture.pfs.map(({ bdf }) => bdf),
    problems: findings.filter(({ level }) => level === 'problem').length,
    findings,
  };
}

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('Checks this host and prints what is missing, each with its fix.')
    .addOption(pfOption('look at this PF only (default: at all there are)'))
    .option('--json', 'as JSON, for programs')
    .addHelpText('after', '\nExample:\n  vfio-user-sriov doctor --pf=0000:01:00.0\n')
    .action(async ({ pf, json }: { pf?: string; json?: true }) => {
      const report = await doctorReport(pf);
      if (json === true) {
        console.log(printableJson(report));
      } else {
        printFindings(report);
      }
      if (report.problems > 0) {
        process.exitCode = 1;
      }
    });
}

function printFindings({ findings, pfs }: DoctorReport): void {
  for (const finding of findings) {
    console.log(lineOf(finding));
  }
  if (pfs.length === 0) {
    console.log('note    there is no PF with SR-IOV here; try `serve --loopback`');
  }
}

function lineOf({ level, subject, text, fix }: Finding): string {
  const line = `${LABELS[level]}${subject}: ${text}`;
  return fix === undefined ? line : `${line}\n          fix: ${fix}`;
}
