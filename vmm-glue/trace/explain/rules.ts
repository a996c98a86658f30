// What the standard asks of a PF's driver, one rule each: what is watched, what breaks it, and where it can be judged.
// PCIe Base 4.0, chapter "Single Root I/O Virtualization and Sharing".

import { fieldOf } from '../../../backend/pci/registers.ts';
import { HEADER } from '../../../backend/pci/spec/header.ts';
import { MSIX, MSIX_ENTRY } from '../../../backend/pci/spec/msix.ts';
import { SRIOV } from '../../../backend/pci/spec/sriov.ts';
import { titleOf } from '../../../backend/pci/spec/titles.ts';
import { RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { seconds } from '../reading/lines.ts';
import type { GuestModel, Mark, Observation } from './guest-model.ts';
import {
  missesAbsentVfs,
  missesEarlyAccesses,
  needsGuestTime,
  needsVectorTable,
} from './limits.ts';
import type { Finding, Rule, Tell } from './rule.ts';
import { DISABLE_WAIT, ENABLE_WAIT, FLR_WAIT, isShort, passed } from './waits.ts';

/** Bytes that any scan of the bus reads of a function that may not be there. */
const SCANNED_BYTES = 4;

/** What registers are called in a trace, made once: a title takes long. */
const NAMES = new Map(Object.keys(SRIOV).map((key) => [key, `SR-IOV ${titleOf(key)}`]));
const register = (key: keyof typeof SRIOV): string => NAMES.get(key)!;

function isWriteOf(observation: Observation, key: keyof typeof SRIOV): boolean {
  const { event, what } = observation.named;
  return (
    event.kind === 'access' && event.isWrite && event.function === 'pf' && what === register(key)
  );
}

function setsVfEnable(observation: Observation): boolean {
  const { decoded } = observation.named;
  return (
    isWriteOf(observation, 'control') &&
    fieldOf(SRIOV.control, 'vfEnable', decoded?.value ?? 0) === 1
  );
}

/**
 * Touches a function for its own sake: not just looking whether it is there. QEMU asks for Interrupt Pin whenever it resets a
 * slot, and nobody else would want it of a VF, which has none.
 */
function isUse({ named: { event } }: Observation): boolean {
  if (event.kind !== 'access' || event.region !== RegionIndex.config || event.isWrite) {
    return event.kind === 'access';
  }
  return event.offset >= SCANNED_BYTES && event.offset !== HEADER.interruptPin.offset;
}

/** Gives who is to be called at each access that has to wait after a write: tells of the first that came too soon. */
function watchWait(model: GuestModel, tell: Tell, wait: number) {
  const told = new WeakSet<Mark>();
  return (write: Mark | undefined, time: number, text: (waited: string) => string): void => {
    if (write === undefined || told.has(write)) {
      return;
    }
    const since = model.since(write, time);
    if (isShort(since, wait)) {
      told.add(write);
      tell({ time, since: write.at, text: text(passed(since.waited)) });
    }
  };
}

export const RULES: readonly Rule[] = [
  {
    id: 'enable-wait',
    title: 'VF Enable without the 100 ms wait',
    standard:
      'after setting VF Enable, software waits 100 ms before it sends a request to a VF ("SR-IOV Control, VF Enable")',
    unjudged: needsGuestTime,
    misses: missesEarlyAccesses,
    watch: (model, tell) => {
      const accessed = watchWait(model, tell, ENABLE_WAIT);
      return {
        see: ({ vf, time, isGuests }) => {
          if (vf !== undefined && isGuests) {
            accessed(
              model.enabled,
              time,
              (waited) => `VF ${vf} was accessed ${waited} of guest time after VF Enable`,
            );
          }
        },
      };
    },
  },
  {
    id: 'disable-wait',
    title: 'disable without the 1 s wait',
    standard:
      'after clearing VF Enable, software waits 1 s before it accesses the SR-IOV capability again ("SR-IOV Control, VF Enable")',
    unjudged: needsGuestTime,
    watch: (model, tell) => {
      const accessed = watchWait(model, tell, DISABLE_WAIT);
      return {
        see: ({ named, time }) => {
          const { event, what } = named;
          const touches =
            event.kind === 'access' &&
            event.function === 'pf' &&
            what.startsWith('SR-IOV ') &&
            what !== register('header');
          if (touches) {
            accessed(
              model.disabled,
              time,
              (waited) =>
                `${what} was accessed ${waited} of guest time after VF Enable was cleared`,
            );
          }
        },
      };
    },
  },
  {
    id: 'numvfs-while-enabled',
    title: 'NumVFs written while VFs are enabled',
    standard:
      'NumVFs must not be written while VF Enable is set ("NumVFs"): the write has no effect here',
    watch: (model, tell) => ({
      see: (observation) => {
        if (isWriteOf(observation, 'numVfs') && model.vfEnable === true) {
          tell({
            time: observation.time,
            text: `NumVFs was written as ${observation.named.decoded?.value} with VF Enable set: ignored`,
          });
        }
      },
    }),
  },
  {
    id: 'numvfs-above-totalvfs',
    title: 'NumVFs above TotalVFs',
    standard: 'NumVFs is at most TotalVFs ("NumVFs"): VF Enable is not taken here with more',
    watch: (_model, tell, totalVfs) => ({
      see: (observation) => {
        const value = observation.named.decoded?.value ?? 0;
        if (isWriteOf(observation, 'numVfs') && value > totalVfs) {
          tell({
            time: observation.time,
            text: `NumVFs was written as ${value}; TotalVFs is ${totalVfs}`,
          });
        }
      },
    }),
  },
  {
    id: 'vf-not-ready',
    title: 'VFs touched before they were ready',
    // Since VF Enable as well, which is enable-wait. A VF that takes longer than its guest waited is no fault of the driver's.
    standard: 'a VF answers when 100 ms have passed since its FLR, and not before ("FLR")',
    unjudged: needsGuestTime,
    misses: missesAbsentVfs,
    watch: (model, tell) => {
      const accessed = watchWait(model, tell, FLR_WAIT);
      return {
        see: (observation) => {
          const { named, vf, time, isGuests } = observation;
          if (vf !== undefined && isGuests && isUse(observation)) {
            accessed(
              model.resets.get(named.event.function),
              time,
              (waited) =>
                `${named.what} of VF ${vf} was accessed when its FLR was ${waited} of guest time ago`,
            );
          }
        },
      };
    },
  },
  {
    id: 'vf-bars-under-mse',
    title: 'VF BARs changed under VF Memory Space Enable',
    standard:
      'VF BARs are not changed while VF Memory Space Enable is set ("VF BARs"): where VFs are is undefined then',
    watch: (model, tell) => ({
      see: (observation) => {
        const { named, time } = observation;
        const { event, decoded, what } = named;
        const isVfBar = event.kind === 'access' && event.isWrite && /^SR-IOV VF BAR \d$/.test(what);
        if (isVfBar && model.vfMemorySpaceEnable === true && decoded?.before !== decoded?.after) {
          tell({ time, text: `${what} was changed with VF Memory Space Enable set` });
        }
      },
    }),
  },
  {
    id: 'page-size-while-enabled',
    title: 'System Page Size changed while VFs are enabled',
    standard:
      'System Page Size must not be written while VF Enable is set ("System Page Size"): ignored here',
    watch: (model, tell) => ({
      see: (observation) => {
        if (isWriteOf(observation, 'systemPageSize') && model.vfEnable === true) {
          tell({
            time: observation.time,
            text: 'System Page Size was written with VF Enable set: ignored',
          });
        }
      },
    }),
  },
  {
    id: 'vf-after-disable',
    title: 'VF accessed after disable',
    standard:
      'with VF Enable clear there are no VFs ("VF Enable"): reads give all-ones, writes are lost',
    misses: missesAbsentVfs,
    watch: (model, tell) => {
      let told: Mark | undefined;
      return {
        see: (observation) => {
          const { named, vf, time, isGuests } = observation;
          const { disabled } = model;
          if (vf === undefined || !isGuests || disabled === undefined || told === disabled) {
            return;
          }
          if (isUse(observation)) {
            told = disabled;
            tell({
              time,
              since: disabled.at,
              text: `${named.what} of VF ${vf} was accessed ${passed(time - disabled.at)} after VF Enable was cleared`,
            });
          }
        },
      };
    },
  },
  {
    id: 'flr-with-vfs',
    title: 'FLR of the PF with VFs on, and VFs not enabled again',
    standard:
      'FLR of a PF clears VF Enable and takes the VFs away ("FLR That Targets a PF"): the driver enables them again',
    watch: (model, tell) => {
      let lost: number | undefined;
      return {
        see: (observation) => {
          const { named, time, vf, isGuests } = observation;
          const { event } = named;
          if (event.kind === 'reset' && event.function === 'pf') {
            const hadVfs = model.vfEnable === true && event.detail.kind === 'function';
            lost = hadVfs ? time : undefined;
          } else if (setsVfEnable(observation) || event.kind === 'gap') {
            lost = undefined;
          } else if (lost !== undefined && vf !== undefined && isGuests && isUse(observation)) {
            tell({ time, since: lost, text: `VF ${vf} was used after the FLR that took it away` });
            lost = undefined;
          }
        },
        end: (time) => {
          if (lost !== undefined && time - lost > DISABLE_WAIT) {
            tell({
              time: lost,
              text: 'the VFs that were enabled went with the FLR, and were not enabled again',
            });
          }
        },
      };
    },
  },
  {
    id: 'vectors-never-enabled',
    title: 'interrupt vectors armed and never enabled',
    standard: 'MSI-X vectors do nothing until MSI-X Enable is set ("Message Control for MSI-X")',
    unjudged: needsVectorTable,
    watch: (_model, tell) => {
      const armed = new Map<string, number>();
      const enabled = new Set<string>();
      /** Whatever was to be of it has been by `time`. */
      const judge = (name: string, time: number): void => {
        const since = armed.get(name);
        if (since !== undefined && !enabled.has(name) && time - since > DISABLE_WAIT) {
          tell({
            time: since,
            text: `vectors of ${name} were unmasked, and MSI-X Enable was never set`,
          });
        }
        armed.delete(name);
        enabled.delete(name);
      };
      return {
        see: ({ named, time }) => {
          const { event, what, decoded } = named;
          // Whoever looks on (`status`), and a glue, come and go beside the VMM.
          const isVmms = event.kind === 'session' && event.detail.role === 'device';
          if (event.kind === 'reset' || isVmms) {
            judge(event.function, time);
          } else if (event.kind === 'access' && event.isWrite) {
            const value = decoded?.value ?? 0;
            if (
              /^MSI-X Vector \d+ Vector Control$/.test(what) &&
              fieldOf(MSIX_ENTRY.vectorControl, 'mask', value) === 0 &&
              !armed.has(event.function)
            ) {
              armed.set(event.function, time);
            } else if (
              what === 'MSI-X Message Control' &&
              fieldOf(MSIX.messageControl, 'enable', decoded?.after ?? value) === 1
            ) {
              enabled.add(event.function);
            }
          }
        },
        end: (time) => {
          for (const name of [...armed.keys()]) {
            judge(name, time);
          }
        },
      };
    },
  },
  {
    id: 'absent-function',
    title: 'config accesses to absent functions',
    standard: 'VFs above NumVFs do not exist ("NumVFs"): reads give all-ones, writes are lost',
    misses: missesAbsentVfs,
    watch: (model, tell) => {
      const told = new Set<number>();
      return {
        see: (observation) => {
          const { named, vf, time, isGuests } = observation;
          const { event } = named;
          if (vf === undefined || !isGuests || event.kind !== 'access' || told.has(vf)) {
            return;
          }
          const { vfEnable, numVfs } = model;
          const isAbsent = vfEnable === true && numVfs !== undefined && vf >= numVfs;
          if (isAbsent && event.region === RegionIndex.config && isUse(observation)) {
            told.add(vf);
            tell({ time, text: `${named.what} of VF ${vf} was accessed; NumVFs is ${numVfs}` });
          }
        },
      };
    },
  },
  {
    id: 'enable-failed',
    title: 'an enable that failed',
    standard: 'VF 0 reads all-ones then, as with hardware whose VFs did not come up',
    watch: (model, tell) => ({
      see: ({ named: { event }, time }) => {
        if (
          event.kind === 'effect' &&
          event.detail.type === 'endEnable' &&
          event.detail.outcome === 'failed'
        ) {
          const since = model.enabled?.at;
          tell({
            time,
            ...(since === undefined ? {} : { since }),
            text: `the VFs did not come up: ${String(event.detail.text)}`,
          });
        }
      },
    }),
  },
];

export function ruleOf(id: string): Rule {
  return RULES.find((rule) => rule.id === id)!;
}

/** A finding for people; times in seconds since the trace began. */
export function findingLine(finding: Finding): string {
  return `${findingText(finding)}\n            ${ruleOf(finding.rule).standard}`;
}

/** The same without the standard's sentence. */
export function findingText({ rule, time, since, text }: Finding): string {
  const reference = since === undefined ? '' : ` (since ${seconds(since)})`;
  return `${seconds(time).padStart(11)}${reference} ${ruleOf(rule).title}: ${text}`;
}
