// `probe --pf=…`: opens a PF, looks at one of its VFs, and prints what they are like; with --output it writes the profile
// that lets `serve --pf --profile` start 1.5 s sooner, and `serve --loopback --profile` look like the card.
import { Command } from 'commander';
import { loadUint } from '../../protocol/little-endian.ts';
import { logInto } from '../../protocol/log.ts';
import { printableJson } from '../../protocol/printable.ts';
import { onEndingSignal } from '../../protocol/unix/ending-signals.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { IrqIndex } from '../../protocol/vfio-user/commands.ts';
import type { DeviceDescription, FunctionShape } from '../device/physical-device.ts';
import { encodeProfile } from '../devices/device-profile.ts';
import { openVfioDevice } from '../devices/vfio/open-vfio-device.ts';
import { PRIVILEGED_OPTION } from '../devices/vfio/options.ts';
import { HEADER } from '../pci/spec/header.ts';
import { writeOutput } from './output-file.ts';
import { pfOption } from './pf-option.ts';

/** What `probe --json` prints; examples/json-output.md describes it. */
export interface ProbeReport {
  readonly version: 1;
  readonly device: string;
  readonly totalVfs: number;
  readonly pf: FunctionReport;
  readonly vf: FunctionReport;
}

interface FunctionReport {
  /** Hexadecimal, as `lspci -n` has them. */
  readonly vendorId: string;
  readonly deviceId: string;
  readonly bars: readonly {
    readonly index: number;
    readonly size: number;
    readonly kind: string;
  }[];
  readonly msixVectors: number;
}

interface ProbeOptions {
  readonly pf: string;
  readonly output?: string;
  readonly privileged?: string;
  readonly json?: true;
}

export function probeCommand(): Command {
  return new Command('probe')
    .description(
      'Looks at a PF and one of its VFs, and writes a profile: for `serve --pf`, which then starts sooner, and for `serve --loopback`, which then looks like that card.',
    )
    .addOption(pfOption().makeOptionMandatory())
    .option('--output <file>', 'where to write the profile (default: nowhere)')
    .option(PRIVILEGED_OPTION.flags, PRIVILEGED_OPTION.description)
    .option('--json', 'as JSON, for programs')
    .addHelpText(
      'after',
      '\nExample:\n  vfio-user-sriov probe --pf=0000:01:00.0 --output=card.json\n',
    )
    .action(async ({ pf, output, privileged, json }: ProbeOptions) => {
      const description = await probed(pf, privileged);
      const report = probeReport(description);
      console.log(json === true ? printableJson(report) : textOf(report));
      if (output !== undefined) {
        writeOutput(output, encodeProfile(description));
        (json === true ? console.error : console.log)(`wrote ${output}`);
      }
    });
}

/** Opens the PF and looks at one of its VFs. @throws HostError */
export async function probed(pf: string, privileged?: string): Promise<DeviceDescription> {
  const log = logInto((level, message) => console.error(`${level}: ${message}`));
  // An end in the middle would leave the VF that is looked at; this takes 2 s.
  const letSignalsEnd = onEndingSignal(log, () => {});
  const device = await openVfioDevice(
    {
      pf,
      container: 'shared',
      ...(privileged === undefined ? {} : { privileged }),
      log,
    },
    processClock,
  );
  try {
    return device.description;
  } finally {
    await device.close();
    letSignalsEnd();
  }
}

export function probeReport({
  name,
  pf,
  vf,
  totalVfs,
  vfDeviceId,
}: DeviceDescription): ProbeReport {
  return {
    version: 1,
    device: name,
    totalVfs,
    pf: functionReport(pf, loadUint(pf.config, HEADER.deviceId.offset, 2)),
    vf: functionReport(vf, vfDeviceId),
  };
}

function functionReport({ config, bars, irqs }: FunctionShape, deviceId: number): FunctionReport {
  return {
    vendorId: hexId(loadUint(config, HEADER.vendorId.offset, 2)),
    deviceId: hexId(deviceId),
    bars: bars.map(({ index, size, kind }) => ({ index, size, kind })),
    msixVectors: irqs[IrqIndex.msix]?.count ?? 0,
  };
}

function hexId(id: number): string {
  return id.toString(16).padStart(4, '0');
}

function textOf({ device, totalVfs, pf, vf }: ProbeReport): string {
  const line = ({ bars, msixVectors }: FunctionReport) =>
    `${bars.map(({ index, size, kind }) => `BAR ${index} ${size} bytes ${kind}`).join(', ')}; ${msixVectors} MSI-X vectors`;
  return [
    `${device}: ${totalVfs} VFs, device ID 0x${vf.deviceId}`,
    `PF: ${line(pf)}`,
    `VF: ${line(vf)}`,
  ].join('\n');
}
