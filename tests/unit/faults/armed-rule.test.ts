import { expect, it } from 'vitest';
import { NVME_FAULTS, opcodeValue } from '../../../backend/devices/nvme/fault-language.ts';
import { ArmedRule } from '../../../backend/faults/armed-rule.ts';
import { parseRule } from '../../../backend/faults/parse-rule.ts';
import { languageWith } from '../../../backend/faults/spec.ts';

const LANGUAGE = languageWith(NVME_FAULTS);

/** At which of ten occasions, counted from 1, it fires. */
function firings(text: string, name = 'pf'): number[] {
  const armed = new ArmedRule(parseRule(text, LANGUAGE));
  return Array.from({ length: 10 }, (_, index) => index + 1).filter(() =>
    armed.meets({ function: name }),
  );
}

it.each([
  ['dma:error', [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]],
  ['dma:error@after=7', [8, 9, 10]],
  ['dma:error@every=4', [4, 8]],
  ['dma:error@times=2', [1, 2]],
  ['dma:error@after=3,every=2,times=2', [5, 7]],
  ['aer:fatal', [1]],
  ['aer:fatal@times=3', [1, 2, 3]],
  ['surprise-removal@after=8', [9, 10]],
  ['dma:error@function=vf1', []],
])('%s fires when it says', (text, expected) => {
  expect(firings(text)).toEqual(expected);
});

it('counts the occasions of the functions that it is about, and no others', () => {
  const armed = new ArmedRule(parseRule('dma:error@every=2,function=vf1', LANGUAGE));
  const met = ['vf1', 'pf', 'vf0', 'vf1', 'vf10', 'vf1'].map((name) =>
    armed.meets({ function: name }),
  );
  expect(met).toEqual([false, false, false, true, false, false]);
  expect(armed.fired).toBe(1);
});

it('a fault that lasts counts once, however long it goes on', () => {
  const armed = new ArmedRule(parseRule('surprise-removal@after=1', LANGUAGE));
  const met = Array.from({ length: 5 }, () => armed.meets({ function: 'pf' }));
  expect(met).toEqual([false, true, true, true, true]);
  expect([armed.fired, armed.lasts({ function: 'vf3' })]).toEqual([1, true]);
});

it('NVMe commands are those of I/O queues unless an admin command is named', () => {
  const io = { function: 'pf', own: { opcode: opcodeValue(6, false) } };
  const admin = { function: 'pf', own: { opcode: opcodeValue(6, true) } };
  const met = (text: string) =>
    [io, admin].map((occasion) => new ArmedRule(parseRule(text, LANGUAGE)).meets(occasion));
  expect(met('nvme:drop')).toEqual([true, false]);
  expect(met('nvme:drop@opcode=6')).toEqual([true, false]);
  expect(met('nvme:drop@opcode=identify')).toEqual([false, true]);
  expect(met('nvme:drop@opcode=read')).toEqual([false, false]);
});
