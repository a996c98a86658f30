// The language of faults as data: what each takes, where it makes sense, and the values and conditions of rules. A kind of
// device may have faults and conditions of its own beside these. README.md explains them to people; a test holds the two together.

import {
  COUNTS,
  type CommonFault,
  type ConditionKind,
  type FaultLanguage,
  type FaultSpec,
  OF_FUNCTION,
  type ValueKind,
} from '../device/faults.ts';
import { MOST_MSIX_VECTORS } from '../pci/spec/msix.ts';
import { MOST_VFS } from '../pci/spec/sriov.ts';

const LONGEST_DURATION = 60_000;
const LARGEST_COUNT = 1_000_000_000;

function decimal(text: string, least: number, most: number): number | undefined {
  const value = Number(text);
  return /^\d{1,10}$/.test(text) && value >= least && value <= most ? value : undefined;
}

export const DURATION: ValueKind = {
  rule: 'a time of at most 60 s, such as 250ms or 3s',
  parse(text) {
    const [, digits, unit] = /^(\d{1,6})(ms|s)$/.exec(text) ?? [];
    const value = Number(digits) * (unit === 's' ? 1000 : 1);
    return value >= 1 && value <= LONGEST_DURATION ? value : undefined;
  },
};

const VF_INDEX: ValueKind = {
  rule: `the index of a VF, counted from 0, such as vf=2`,
  parse: (text) => decimal(text, 0, MOST_VFS - 1),
};

/** The values of conditions, by name. */
const CONDITIONS = {
  after: {
    rule: 'how many occasions pass before, such as after=100',
    parse: (text) => decimal(text, 0, LARGEST_COUNT),
  },
  every: {
    rule: 'at which occasions it fires, such as every=100 for each hundredth',
    parse: (text) => decimal(text, 1, LARGEST_COUNT),
  },
  times: {
    rule: 'how often it fires at most, such as times=1',
    parse: (text) => decimal(text, 1, LARGEST_COUNT),
  },
  /** PF: -1. */
  function: {
    rule: 'a function: pf, vf0, vf1, …',
    parse: (text) =>
      text === 'pf' ? -1 : /^vf\d+$/.test(text) ? VF_INDEX.parse(text.slice(2)) : undefined,
  },
  vector: {
    rule: 'a vector, counted from 0, such as vector=3',
    parse: (text) => decimal(text, 0, MOST_MSIX_VECTORS - 1),
  },
} as const satisfies Record<string, ConditionKind>;

const SPURIOUS_MILLISECONDS = 1000;

const FAULTS: Readonly<Record<CommonFault, FaultSpec>> = {
  'vf-enable:fail': { conditions: COUNTS },
  'vf-enable:delay': { value: DURATION, conditions: COUNTS },
  'vf:absent': { subject: VF_INDEX, conditions: COUNTS },
  'flr:hang': { conditions: OF_FUNCTION },
  'flr:delay': { value: DURATION, conditions: OF_FUNCTION },
  'config-read:all-ones': { conditions: OF_FUNCTION },
  'dma:error': {
    conditions: OF_FUNCTION,
    notOfHardware: 'its DMA goes through the IOMMU, not through this program',
  },
  'msix:lost': { conditions: [...OF_FUNCTION, 'vector'] },
  'msix:spurious': {
    value: DURATION,
    defaultValue: SPURIOUS_MILLISECONDS,
    conditions: [...OF_FUNCTION, 'vector'],
  },
  'aer:correctable': { conditions: OF_FUNCTION, times: 1 },
  'aer:nonfatal': { conditions: OF_FUNCTION, times: 1 },
  'aer:fatal': { conditions: OF_FUNCTION, times: 1 },
  'surprise-removal': {
    conditions: ['after', 'function'],
    isLasting: true,
    notOfHardware: 'its memory is mapped, and its DMA goes on',
  },
};

/** What can be said of every kind of device. */
export const COMMON_LANGUAGE: FaultLanguage = { faults: FAULTS, conditions: CONDITIONS };

/** That, with what a kind has of its own. */
export function languageWith(own: FaultLanguage): FaultLanguage {
  return {
    faults: { ...FAULTS, ...own.faults },
    conditions: { ...CONDITIONS, ...own.conditions },
  };
}
