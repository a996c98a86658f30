// `release --pf=…`: gives a PF back to the driver that `prepare` took it from. Refuses while somebody uses it.
import { Command } from 'commander';
import { SILENT } from '../../protocol/log.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { linuxContext } from '../devices/vfio/linux-context.ts';
import { release } from '../devices/vfio/readiness/preparation.ts';
import { pfOption } from './pf-option.ts';
import { systemTools } from './preparation-tools.ts';
import { requireRoot } from './root.ts';

export function releaseCommand(): Command {
  return new Command('release')
    .description('Undoes `prepare`: gives a PF back to its driver (root).')
    .addOption(pfOption().makeOptionMandatory())
    .addHelpText('after', '\nExample:\n  sudo vfio-user-sriov release --pf=0000:01:00.0\n')
    .action(async ({ pf }: { pf: string }) => {
      requireRoot('release');
      const report = (line: string) => console.log(line);
      await release(linuxContext(SILENT, processClock), systemTools(), pf, report);
    });
}
