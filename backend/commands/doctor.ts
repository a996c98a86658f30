// `doctor [--pf=…]`: looks a host over and prints each finding with its fix. Ends with 1 when there is a problem.
import { Command } from 'commander';
import { SILENT } from '../../protocol/log.ts';
import { linuxContext } from '../devices/vfio/linux-context.ts';
import { examine, type Finding } from '../devices/vfio/readiness/doctor.ts';
import { surveyHost } from '../devices/vfio/readiness/host-survey.ts';
import { pfOption } from './pf-option.ts';

const LABELS = { ok: 'ok      ', note: 'note    ', problem: 'PROBLEM ' } as const;

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('Checks this host and prints what is missing, each with its fix.')
    .addOption(pfOption('look at this PF only (default: at all there are)'))
    .addHelpText('after', '\nExample:\n  vfio-user-sriov doctor --pf=0000:01:00.0\n')
    .action(async ({ pf }: { pf?: string }) => {
      const context = linuxContext(SILENT);
      const picture = await surveyHost(context, pf === undefined ? undefined : [pf]);
      const findings = examine(picture);
      for (const finding of findings) {
        console.log(lineOf(finding));
      }
      if (picture.pfs.length === 0) {
        console.log('note    there is no PF with SR-IOV here; try `serve --loopback`');
      }
      if (findings.some(({ level }) => level === 'problem')) {
        process.exitCode = 1;
      }
    });
}

function lineOf({ level, subject, text, fix }: Finding): string {
  const line = `${LABELS[level]}${subject}: ${text}`;
  return fix === undefined ? line : `${line}\n          fix: ${fix}`;
}
