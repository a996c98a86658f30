// How QEMU's options say yes.
const YES = ['on', 'yes', 'true', 'y'];

/** Whether a property that is there is switched on. */
export function isOn(value: string | undefined): boolean {
  return value !== undefined && YES.includes(value);
}
