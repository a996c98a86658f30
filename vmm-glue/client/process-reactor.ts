// The one readiness reactor of this process, shared by every connection and interrupt of the client library.
// It starts with the first user, and keeps the process alive only while something is watched.

import { Reactor } from '../../protocol/unix/reactor.ts';

let reactor: Reactor | undefined;

/** The process's reactor. */
export function processReactor(): Reactor {
  reactor ??= new Reactor();
  return reactor;
}
