import { describe, expect, it } from 'vitest';
import { NVME_FAULTS, opcodeValue } from '../../../backend/devices/nvme/fault-language.ts';
import { parseRule, RuleError } from '../../../backend/faults/parse-rule.ts';
import { languageWith } from '../../../backend/faults/spec.ts';

const LANGUAGE = languageWith(NVME_FAULTS);

function problemOf(text: string): { at: string; what: string; fix: string } {
  try {
    parseRule(text, LANGUAGE);
  } catch (error) {
    if (error instanceof RuleError) {
      const { position, what, fix } = error;
      return { at: text.slice(position), what, fix };
    }
    throw error;
  }
  throw new Error(`${text} was taken`);
}

describe('a rule', () => {
  it.each([
    ['vf-enable:fail', { value: 0, conditions: {} }],
    ['vf-enable:delay=3s', { value: 3000, conditions: {} }],
    ['vf=2:absent', { name: 'vf:absent', subject: 2 }],
    ['flr:hang@function=vf1', { conditions: { function: 1 } }],
    ['flr:delay=250ms@function=pf', { value: 250, conditions: { function: -1 } }],
    ['config-read:all-ones@after=100', { conditions: { after: 100 } }],
    ['dma:error@every=100,times=2', { conditions: { every: 100, times: 2 } }],
    ['msix:lost@vector=3', { conditions: { vector: 3 } }],
    ['msix:spurious', { value: 1000 }],
    ['msix:spurious=50ms@vector=1', { value: 50, conditions: { vector: 1 } }],
    ['aer:fatal', { name: 'aer:fatal' }],
    ['surprise-removal', { name: 'surprise-removal' }],
    ['nvme:status=0x281@opcode=read', { value: 0x281, conditions: { opcode: 2 } }],
    ['nvme:status=write-fault@opcode=0x01', { value: 0x280, conditions: { opcode: 1 } }],
    ['nvme:drop@opcode=identify', { conditions: { opcode: opcodeValue(6, true) } }],
    ['nvme:csts-cfs', { name: 'nvme:csts-cfs' }],
  ])('%s says what it says', (text, parts) => {
    expect(parseRule(text, LANGUAGE)).toMatchObject({ text, ...parts });
  });
});

describe('a text that is no rule is told with its place:', () => {
  it.each([
    ['', '', 'there is no fault ""'],
    ['dam:error', 'dam:error', 'there is no fault "dam"'],
    ['dma:eror', 'eror', 'there is no fault "eror"'],
    ['vf-enable', 'vf-enable', 'there is no fault "vf-enable"'],
    ['flr:delay', '', 'a value is missing'],
    ['flr:delay=5', '5', '"5" will not do'],
    ['flr:delay=61s', '61s', '"61s" will not do'],
    ['flr:delay=0ms', '0ms', '"0ms" will not do'],
    ['flr:hang=3s', '=3s', 'no value belongs here'],
    ['vf:absent', ':absent', 'a value is missing'],
    ['vf=256:absent', '256:absent', '"256" will not do'],
    ['dma=1:error', '=1:error', 'no value belongs here'],
    ['dma:error@', '', 'dma:error has no condition ""'],
    ['dma:error@evry=100', 'evry=100', 'dma:error has no condition "evry"'],
    ['dma:error@vector=1', 'vector=1', 'dma:error has no condition "vector"'],
    ['dma:error@every', '', 'a value is missing'],
    ['dma:error@every=0', '0', '"0" will not do'],
    ['dma:error@every=1e3', '1e3', '"1e3" will not do'],
    ['dma:error@every=2,every=3', 'every=3', '"every" is said twice'],
    ['dma:error@every=2,', '', 'dma:error has no condition ""'],
    ['msix:lost@function=vf', 'vf', '"vf" will not do'],
    ['nvme:status=success', 'success', '"success" will not do'],
    ['nvme:drop@opcode=raed', 'raed', '"raed" will not do'],
  ])('%s', (text, at, what) => {
    expect(problemOf(text)).toMatchObject({ at, what });
  });

  it('one that is too long, too', () => {
    expect(problemOf('x'.repeat(1000)).what).toBe('the rule is too long');
  });

  it('and with what there is to choose from', () => {
    expect(problemOf('aer:bad').fix).toBe('choose one of aer:correctable, aer:nonfatal, aer:fatal');
    expect(problemOf('msix:lost@x=1').fix).toBe(
      'choose one of after, every, times, function, vector',
    );
  });
});
