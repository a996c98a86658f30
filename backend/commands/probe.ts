// `probe --pf=…`: opens a PF, looks at one of its VFs, and prints what they are like; with --output it writes the profile
// that lets `serve --pf --profile` start 1.5 s sooner, and `serve --loopback --profile` look like the card.
import { writeFileSync } from 'node:fs';
import { Command } from 'commander';
import { situationOf } from '../../protocol/explained-error.ts';
import { logInto } from '../../protocol/log.ts';
import { onEndingSignal } from '../../protocol/unix/ending-signals.ts';
import { UserError } from '../../protocol/user-error.ts';
import type { DeviceDescription } from '../device/physical-device.ts';
import { encodeProfile } from '../devices/device-profile.ts';
import { openVfioDevice } from '../devices/vfio/open-vfio-device.ts';
import { pfOption } from './pf-option.ts';

export function probeCommand(): Command {
  return new Command('probe')
    .description(
      'Looks at a PF and one of its VFs, and writes a profile: for `serve --pf`, which then starts sooner, and for `serve --loopback`, which then looks like that card.',
    )
    .addOption(pfOption().makeOptionMandatory())
    .option('--output <file>', 'where to write the profile (default: nowhere)')
    .addHelpText(
      'after',
      '\nExample:\n  vfio-user-sriov probe --pf=0000:01:00.0 --output=card.json\n',
    )
    .action(async ({ pf, output }: { pf: string; output?: string }) => {
      const log = logInto((level, message) => console.error(`${level}: ${message}`));
      // An end in the middle would leave the VF that is looked at; this takes 2 s.
      const letSignalsEnd = onEndingSignal(log, () => {});
      const device = await openVfioDevice({ pf, container: 'shared', log });
      try {
        for (const line of summaryOf(device.description)) {
          console.log(line);
        }
        if (output !== undefined) {
          writeProfile(output, encodeProfile(device.description));
          console.log(`wrote ${output}`);
        }
      } finally {
        await device.close();
        letSignalsEnd();
      }
    });
}

function summaryOf({ name, pf, vf, totalVfs, vfDeviceId }: DeviceDescription): string[] {
  const bars = (shape: typeof pf) =>
    shape.bars.map(({ index, size, kind }) => `BAR ${index} ${size} bytes ${kind}`).join(', ');
  const vectors = (shape: typeof pf) => shape.irqs[2]?.count ?? 0;
  return [
    `${name}: ${totalVfs} VFs, device ID 0x${vfDeviceId.toString(16)}`,
    `PF: ${bars(pf)}; ${vectors(pf)} MSI-X vectors`,
    `VF: ${bars(vf)}; ${vectors(vf)} MSI-X vectors`,
  ];
}

function writeProfile(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    throw new UserError(`--output: ${situationOf(error)}`, 'choose another file');
  }
}
