// The signals that ask a program to end, which it does in good order: SIGTERM, SIGINT, SIGQUIT, and SIGHUP where its
// terminal has gone. A service has no terminal: there SIGHUP is what an administrator sends to have a program read its
// options again, and no reason to take a VM its device. A log in a file is opened anew.
import { closeSync, constants, openSync } from 'node:fs';
import type { Log } from '../log.ts';

const ENDING = ['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGHUP'] as const;
export type EndingSignal = (typeof ENDING)[number];

/** A log; `reopen` is there where it is in a file. */
type ReopenableLog = Log & { readonly reopen?: () => void };

/** Calls back for each such signal, until the returned function is called; `reopened`: after a SIGHUP that was for the log. */
export function onEndingSignal(
  log: ReopenableLog,
  callback: (signal: EndingSignal) => void,
  reopened = (): void => {},
): () => void {
  const hadTerminal = hasTerminal();
  const listener = (signal: NodeJS.Signals): void => {
    if (signal === 'SIGHUP' && log.reopen !== undefined && hasTerminal() === hadTerminal) {
      log.reopen();
      reopened();
    } else if (signal === 'SIGHUP' && isService(process.env)) {
      log.info('SIGHUP is ignored: options are read at the start only');
    } else {
      callback(signal as EndingSignal);
    }
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

/** A terminal that hangs up is taken from its processes before they hear of it. */
function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', constants.O_RDWR | constants.O_NONBLOCK));
    return true;
  } catch {
    return false;
  }
}
