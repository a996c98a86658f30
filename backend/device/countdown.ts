// What is done when several things are over that end each in its own time.

/** Gives what each of `count` things calls when it is over. The last one calls `done`; where there is none it comes at once. */
export function countdown(count: number, done: () => void): () => void {
  let left = count;
  if (left === 0) {
    done();
  }
  return () => {
    left--;
    if (left === 0) {
      done();
    }
  };
}
