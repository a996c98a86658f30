// `report`: writes one file for a bug report: what doctor, probe and status tell, versions, and lines of the kernel's log.
import { hostname, userInfo } from 'node:os';
import { Command } from 'commander';
import { situationOf } from '../../protocol/explained-error.ts';
import { programVersion } from '../../protocol/unix/program-version.ts';
import { kernelPicture } from '../report/kernel.ts';
import { reportText } from '../report/report.ts';
import { doctorReport } from './doctor.ts';
import { writeOutput } from './output-file.ts';
import { pfOption } from './pf-option.ts';
import { probed, probeReport } from './probe.ts';

const STATUS_MILLISECONDS = 2000;

interface ReportOptions {
  readonly output: string;
  readonly pf?: string;
}

/** `statuses`: what each backend answers, or why it does not. */
export function reportCommand(
  statuses: (timeoutMilliseconds: number) => Promise<readonly unknown[]>,
): Command {
  return new Command('report')
    .description(
      'Writes one file for a bug report: what doctor and status say, and lines of the kernel log; with --pf, what probe says of that PF, too, ' +
        'which opens it. Names, addresses, serial numbers and VF tokens are left out.',
    )
    .addOption(pfOption('probe this PF as well, which must not be in use'))
    .option('--output <file>', 'where to write it', 'vfio-user-sriov-report.txt')
    .addHelpText(
      'after',
      '\nExample:\n  sudo vfio-user-sriov report --pf=0000:01:00.0 --output=report.txt\n',
    )
    .action(async ({ output, pf }: ReportOptions) => {
      const text = reportText({
        versions: { 'vfio-user-sriov': programVersion(), node: process.version },
        kernel: await kernelPicture(pf),
        doctor: await doctorReport(pf),
        probe: pf === undefined ? 'not asked for: --pf=ADDRESS' : await probeOrReason(pf),
        status: await statuses(STATUS_MILLISECONDS),
        names: [hostname(), userInfo().username, process.env.SUDO_USER ?? ''],
      });
      // Never over a file that is there: as root, in a folder of everybody's, it may be a link.
      writeOutput(output, text, { flag: 'wx', mode: 0o600 });
      console.log(`wrote ${output}: read it before you hand it on`);
    });
}

async function probeOrReason(pf: string): Promise<unknown> {
  try {
    return probeReport(await probed(pf));
  } catch (error) {
    return situationOf(error);
  }
}
