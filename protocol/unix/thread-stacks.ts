// Where the other threads of this process are just now, for one that does not come back.

/** One line a frame. A thread that waits in a system call is waited for: this is for one that runs JavaScript. */
export function stacksOfThreads(): string {
  const { workers = [] } = process.report.getReport() as unknown as {
    workers?: { javascriptStack?: { stack?: string[] } }[];
  };
  return workers.flatMap(({ javascriptStack }) => javascriptStack?.stack ?? []).join('\n    ');
}
