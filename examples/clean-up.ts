// What a demo leaves behind: nothing, also where it is ended by a signal or nobody reads what it prints.

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

/**
 * Has `cleanUp` run, once, before a signal or a closed output ends this process; the process then ends by that. Gives
 * whether that has begun: what fails from then on, fails because of it.
 */
export function whenCutShort(cleanUp: () => Promise<void>): () => boolean {
  let begun = false;
  const leave = async (end: () => void): Promise<void> => {
    if (begun) {
      return;
    }
    begun = true;
    await cleanUp();
    end();
  };
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      void leave(() => {
        process.removeAllListeners(signal);
        process.kill(process.pid, signal);
      });
    });
  }
  process.stdout.on('error', () => {
    void leave(() => process.exit(1));
  });
  return () => begun;
}
