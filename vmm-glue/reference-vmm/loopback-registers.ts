// The loopback device's register page as its driver knows it: BAR 0 of the PF and of every VF, offsets in bytes. A reader of
// its own, on purpose: it shares no numbers with the device (backend/devices/loopback), so that a wrong one shows.

/** "VUSR". */
export const MAGIC = 0x52535556;

export const Register = {
  magic: 0x00,
  functionNumber: 0x04,
  generation: 0x08,
  scratch: 0x0c,
  doorbell: 0x10,
  doorbellCount: 0x14,
  sourceLow: 0x20,
  destinationLow: 0x28,
  length: 0x30,
  doneVector: 0x34,
  start: 0x38,
  status: 0x3c,
} as const;

/** Values of the status register; 0 is idle. */
export const StatusText: readonly string[] = [
  'idle',
  'done',
  'address not mapped',
  'bus mastering is off',
  'bad length',
];
