// Replays what a real Linux guest did to a real emulated device's SR-IOV capability: every read must agree.

import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { SRIOV } from '../../../backend/pci/spec/sriov.ts';
import { SriovCapability, type SriovEvent } from '../../../backend/sriov/capability.ts';

const FIXTURE = new URL('../../fixtures/linux-6.12-sriov-accesses.txt', import.meta.url);

interface Access {
  readonly kind: 'read' | 'write' | 'reset';
  readonly register: keyof typeof SRIOV;
  readonly value: number;
  readonly text: string;
}

function recordedAccesses(): Access[] {
  const lines = readFileSync(FIXTURE, 'utf8').split('\n');
  return lines
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const [kind, register, value] = line.split(' ');
      return { kind, register, value: Number(value), text: line } as Access;
    });
}

function igbCapability(): SriovCapability {
  const bar = { size: 16 * 1024, kind: 'memory64', prefetchable: true } as const;
  return new SriovCapability({
    totalVfs: 8,
    vfDeviceId: 0x10ca,
    firstVfOffset: 0x80,
    vfStride: 2,
    vfBars: [
      { index: 0, ...bar },
      { index: 3, ...bar },
    ],
    functionDependencyLink: 0,
  });
}

function replay(accesses: readonly Access[]) {
  const capability = igbCapability();
  const seen: string[] = [];
  const events: SriovEvent[] = [];
  for (const { kind, register, value, text } of accesses) {
    if (kind === 'reset') {
      capability.reset();
      seen.push(text);
      continue;
    }
    const { offset, bytes } = SRIOV[register];
    if (kind === 'write') {
      events.push(...capability.write(offset, bytes, value));
      seen.push(text);
    } else {
      seen.push(`read ${register} 0x${capability.read(offset, bytes).toString(16)}`);
    }
  }
  return { capability, seen, events };
}

it('every register reads as the Linux guest read it from QEMU’s igb', () => {
  const accesses = recordedAccesses();
  const { seen } = replay(accesses);
  expect(accesses).toHaveLength(97);
  expect(seen).toEqual(accesses.map(({ text }) => text));
});

it('the guest’s enables and disables are told in order, with the NumVFs of each', () => {
  const { events } = replay(recordedAccesses());
  const switches = events.filter(({ type }) => type.startsWith('vfEnable'));
  expect(switches).toEqual([
    { type: 'vfEnableSet', numVfs: 2 },
    { type: 'vfEnableCleared' },
    { type: 'vfEnableSet', numVfs: 1 },
    { type: 'vfEnableSet', numVfs: 1 },
  ]);
});

it('at the end VF 1’s BARs lie one VF BAR above the addresses that the guest gave', () => {
  const { capability } = replay(recordedAccesses());
  expect(capability.vfBarAddress(0, 1)).toBe(0xfe00_4000n);
  expect(capability.vfBarAddress(3, 1)).toBe(0xfe02_4000n);
});
