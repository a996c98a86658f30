// How much the VM tests do: what CI has time for, or everything (`FULL=1`, as `.ci/run --full` sets it).

/** `usual` rounds, or `full` ones. */
export function rounds(usual: number, full: number): number {
  return process.env.FULL === '1' ? full : usual;
}
