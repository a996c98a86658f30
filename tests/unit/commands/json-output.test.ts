// What `doctor --json` and `probe --json` print is what examples/json-output.md says. (`status --json`: tests/protocol.)
import { describe, expect, it } from 'vitest';
import { doctorReport } from '../../../backend/commands/doctor.ts';
import { probeReport } from '../../../backend/commands/probe.ts';
import { describeDevice } from '../../../backend/devices/kit/describe.ts';
import { declareNvme } from '../../../backend/devices/nvme/device.ts';
import { differences } from '../../json-tables.ts';

const CARD = describeDevice(
  declareNvme({
    totalVfs: 5,
    vfs: 'online',
    serialNumber: 'S1',
    uuid: new Uint8Array(16),
    namespaces: [],
  }),
);

it('doctor’s, of this machine', async () => {
  expect(differences('doctor', JSON.parse(JSON.stringify(await doctorReport(undefined))))).toEqual(
    [],
  );
});

it('probe’s', () => {
  const report = probeReport(CARD);
  expect(differences('probe', report)).toEqual([]);
  expect(report.pf.vendorId).toMatch(/^[0-9a-f]{4}$/);
});

describe('the tables', () => {
  const right = { version: 1, pfs: ['a'], problems: 0, findings: [] };

  it.each([
    [{ ...right, more: 1 }, 'more is not described'],
    [{ ...right, problems: '0' }, 'problems is "0"'],
    [{ version: 1, pfs: [], findings: [] }, 'problems is absent'],
    [{ ...right, version: 2 }, 'version is 2'],
  ])('tell what is not as they say', (value, what) => {
    expect(differences('doctor', value)).toEqual([what]);
  });
});
