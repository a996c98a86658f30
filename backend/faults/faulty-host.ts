// The line to the host where making VFs goes wrong on purpose.

import type { Clock } from '../../protocol/clock.ts';
import { Errno } from '../../protocol/errno.ts';
import type { Faults } from '../device/faults.ts';
import { HostError, type HostLink } from '../device/physical-device.ts';

const PF = { function: 'pf' } as const;

export function faultyHost(host: HostLink, faults: Faults, clock: Clock): HostLink {
  return {
    request(name, args, done) {
      if (name !== 'createVfs') {
        host.request(name, args, done);
        return;
      }
      const delay = faults.fires('vf-enable:delay', PF)?.value ?? 0;
      const failure = faults.fires('vf-enable:fail', PF);
      const goOn =
        failure === undefined
          ? () => host.request(name, args, done)
          : () => done(failed(failure.rule), undefined);
      if (delay === 0 && failure === undefined) {
        goOn();
      } else {
        clock.after(delay, goOn);
      }
    },
  };
}

function failed(rule: string): HostError {
  const what = `the fault ${rule} was asked for`;
  return new HostError('write', Errno.EIO, 'sriov_numvfs', what, 'clear the fault');
}
