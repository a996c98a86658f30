// Tells on standard error what the lab is doing and how long it took. Standard output stays free for the result.

/** Runs `work` and reports `what` before it and the seconds after it. */
export async function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  process.stderr.write(`lab: ${what} …\n`);
  const start = performance.now();
  const result = await work();
  process.stderr.write(`lab: ${what}: ${((performance.now() - start) / 1000).toFixed(1)} s\n`);
  return result;
}
