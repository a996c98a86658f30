// The signals that ask a program to end, which it does in good order: SIGTERM, SIGINT, SIGQUIT, and SIGHUP where its
// terminal has gone. A service has no terminal: there SIGHUP is what an administrator sends to have a program read its
// options again, and no reason to take a VM its device.
import type { Log } from '../log.ts';

const ENDING = ['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGHUP'] as const;
export type EndingSignal = (typeof ENDING)[number];

/** Calls back for each such signal, until the returned function is called. */
export function onEndingSignal(log: Log, callback: (signal: EndingSignal) => void): () => void {
  const listener = (signal: NodeJS.Signals): void => {
    if (signal === 'SIGHUP' && isService(process.env)) {
      log.info('SIGHUP is ignored: options are read at the start only');
      return;
    }
    callback(signal as EndingSignal);
  };
  for (const signal of ENDING) {
    process.on(signal, listener);
  }
  return () => {
    for (const signal of ENDING) {
      process.off(signal, listener);
    }
  };
}

/** Whether systemd has started this very process, and not a shell that it has started (systemd.exec(5)). */
function isService({ SYSTEMD_EXEC_PID: pid, NOTIFY_SOCKET: notify }: NodeJS.ProcessEnv): boolean {
  return notify !== undefined || pid === String(process.pid);
}
