// The line to the host, with every request and its outcome told to the observers.

import type { Clock } from '../../protocol/clock.ts';
import type { Observers } from '../device/observer.ts';
import type { HostLink } from '../device/physical-device.ts';

/** What of a request's arguments a person wants to know: numbers and names, no lists. */
function told(args: object): object {
  return Object.fromEntries(
    Object.entries(args).filter(([, value]) => ['number', 'string'].includes(typeof value)),
  );
}

export function observedHost(host: HostLink, observers: Observers, clock: Clock): HostLink {
  return {
    request(name, args, done) {
      const began = clock.now();
      observers.host(name, told(args));
      host.request(name, args, (error, reply) => {
        observers.host(name, told(args), clock.now() - began, error?.message);
        done(error, reply);
      });
    },
  };
}
