/** What `look` finds, or undefined: files of sysfs and /proc come and go while one looks, and some are closed to us. */
export function attempt<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
