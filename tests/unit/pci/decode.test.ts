import { describe, expect, it } from 'vitest';
import { decodeAccess, describeRegister, SeenBytes } from '../../../backend/pci/decode.ts';
import { configMap, RegisterMap } from '../../../backend/pci/register-map.ts';
import { reg32 } from '../../../backend/pci/registers.ts';
import { MSIX } from '../../../backend/pci/spec/msix.ts';
import { titleOf } from '../../../backend/pci/spec/titles.ts';
import { loopbackDevice } from '../../fakes/loopback.ts';

const { pf, vf } = loopbackDevice({
  totalVfs: 4,
  vfBarSize: 16384,
  enableMilliseconds: 0,
}).description;
const map = configMap(pf.config, 'pf');

function offsetOf(name: string): number {
  return map.registers.find((each) => each.name === name)!.offset;
}

function write(name: string, bytes: number[], seen = new SeenBytes(pf.config), lane = 0) {
  return decodeAccess(map, seen, {
    isWrite: true,
    offset: offsetOf(name) + lane,
    bytes: Uint8Array.from(bytes),
  });
}

describe('titles', () => {
  it.each([
    ['numVfs', 'NumVFs'],
    ['vfBar0', 'VF BAR 0'],
    ['systemPageSize', 'System Page Size'],
    ['deviceControl2', 'Device Control 2'],
    ['vendorId', 'Vendor ID'],
    ['control', 'Control'],
  ])('%s is called %s', (name, title) => {
    expect(titleOf(name)).toBe(title);
  });
});

describe('a config access of the PF', () => {
  it('a write names its register and each field that changes, with before and after', () => {
    const [decoded] = write('SR-IOV Control', [0x19, 0x00]);
    expect(decoded).toMatchObject({ name: 'SR-IOV Control', value: 0x19, before: 0, after: 0x19 });
    expect(describeRegister(decoded!, true)).toBe(
      '0x0019  vfEnable 0→1, vfMemorySpaceEnable 0→1, ariCapableHierarchy 0→1',
    );
  });

  it('a field that keeps its value is not named', () => {
    const seen = new SeenBytes(pf.config);
    write('SR-IOV Control', [0x10, 0x00], seen);
    const [decoded] = write('SR-IOV Control', [0x19, 0x00], seen);
    expect(decoded!.fields.map(({ field }) => field)).toEqual(['vfEnable', 'vfMemorySpaceEnable']);
  });

  it('what nobody saw before has no before', () => {
    const [decoded] = write('SR-IOV Control', [0x01, 0x00], new SeenBytes());
    expect(decoded).toMatchObject({ before: undefined, after: undefined });
    expect(describeRegister(decoded!, true)).toContain('vfEnable ?→1');
  });

  it('a single byte of a register changes the fields in that byte', () => {
    const [decoded] = write('Command', [0x04], new SeenBytes(pf.config), 0);
    expect(decoded).toMatchObject({ name: 'Command', length: 1 });
    expect(describeRegister(decoded!, true)).toBe('0x04  busMasterEnable 0→1');
    const [high] = write('Command', [0x04], new SeenBytes(pf.config), 1);
    expect(describeRegister(high!, true)).toBe('0x04  interruptDisable 0→1');
  });

  it('a 1 written to a bit that writing clears, clears it', () => {
    const seen = new SeenBytes(pf.config);
    seen.set(offsetOf('Status'), 2, 0x8010);
    const [decoded] = write('Status', [0x00, 0x80], seen);
    expect(describeRegister(decoded!, true)).toBe('0x8000  detectedParityError 1→0');
    expect(seen.value(offsetOf('Status'), 2)).toBe(0x0010);
  });

  it('a write to read-only bits changes no field', () => {
    const [decoded] = write('SR-IOV TotalVFs', [0xff, 0xff]);
    expect(decoded).toMatchObject({ before: 4, after: 4, fields: [] });
  });

  it('an access over two registers names both', () => {
    const decoded = write('SR-IOV InitialVFs', [0, 0, 0, 0]);
    expect(decoded.map(({ name }) => name)).toEqual(['SR-IOV InitialVFs', 'SR-IOV TotalVFs']);
  });

  it('a read names the fields that are set, and is remembered', () => {
    const seen = new SeenBytes();
    const offset = offsetOf('Status');
    const [decoded] = decodeAccess(map, seen, {
      isWrite: false,
      offset,
      bytes: Uint8Array.of(0x10, 0x00),
    });
    expect(describeRegister(decoded!, false)).toBe('0x0010  capabilitiesList 1');
    expect(seen.value(offset, 2)).toBe(0x10);
  });
});

describe('the map of a config space', () => {
  it('every byte of every access belongs to exactly one piece', () => {
    const pieces = map.pieces(0, 4096);
    expect(pieces.reduce((sum, { length }) => sum + length, 0)).toBe(4096);
    expect(pieces.every(({ length }) => length >= 1 && length <= 4)).toBe(true);
  });

  it('the capabilities of the chain have their names, the same register its own in each', () => {
    const blocks = new Set(map.registers.map(({ block }) => block));
    for (const title of ['PCIe', 'MSI-X', 'PM', 'SR-IOV', 'ARI']) {
      expect(blocks).toContain(title);
    }
    expect(map.at(offsetOf('MSI-X Message Control'))?.register).toBe(MSIX.messageControl);
  });

  it('a VF has the standard’s rules for VFs: Memory Space Enable can’t be written', () => {
    const vfMap = configMap(vf.config, 'vf');
    const [decoded] = decodeAccess(vfMap, new SeenBytes(vf.config), {
      isWrite: true,
      offset: 0x04,
      bytes: Uint8Array.of(0x06, 0x00),
    });
    expect(describeRegister(decoded!, true)).toBe('0x0006  busMasterEnable 0→1');
  });

  it('bytes that no table names are told by the block that they follow', () => {
    expect(map.pieces(0xff8, 4)[0]).toMatchObject({ register: undefined, length: 4 });
    expect(map.pieces(0xff8, 4)[0]!.name).toMatch(/ \+0x[0-9a-f]+$/);
  });

  it('a space that reads all-ones has a header and nothing else', () => {
    const absent = configMap(new Uint8Array(4096).fill(0xff), 'vf');
    expect(new Set(absent.registers.map(({ block }) => block))).toEqual(new Set(['']));
  });
});

it('a BAR’s registers are named by the tables that its device brings', () => {
  const bar = new RegisterMap('BAR 0', [
    { title: 'NIC', offset: 0x100, table: { doorbell: reg32(0x10, 'rw') } },
  ]);
  expect(bar.pieces(0x110, 4)[0]!.name).toBe('NIC Doorbell');
  expect(bar.pieces(0x20, 4)[0]!.name).toBe('BAR 0 +0x20');
});
