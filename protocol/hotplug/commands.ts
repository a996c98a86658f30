// The numbers of the hot-plug extension's commands, and their names in its specification (README.md beside this file).

/** Command numbers in vfio-user headers; those from 0x8010 on go from client to server. */
export const HotplugCommand = {
  enableBegin: 0x8001,
  vfPlug: 0x8002,
  vfUnplug: 0x8003,
  enableEnd: 0x8004,
  vfMemorySpace: 0x8005,
  regionChanged: 0x8006,
  slotsMoved: 0x8007,
  getStatus: 0x8010,
  traceStart: 0x8011,
  traceStop: 0x8012,
  glueEvents: 0x8013,
  vfsTrapped: 0x8014,
  traceWatch: 0x8015,
  faults: 0x8016,
  getSlots: 0x8017,
} as const;
export type HotplugCommand = (typeof HotplugCommand)[keyof typeof HotplugCommand];

const names: ReadonlyMap<number, string> = new Map(
  Object.entries(HotplugCommand).map(([name, command]) => [
    command,
    `${name.charAt(0).toUpperCase()}${name.slice(1)}`,
  ]),
);

/** The specification's name of a command: "VfPlug"; undefined for one that it does not have. */
export function hotplugName(command: number): string | undefined {
  return names.get(command);
}
