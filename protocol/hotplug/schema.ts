// hotplug.proto as a protobufjs descriptor, so that no file has to be found and parsed at run time. Names are those of
// codec.ts: in camelCase, and an enum's values without its name.
// A test keeps the two equal; change the .proto first.

const u32 = (id: number) => ({ type: 'uint32', id });

/** Messages and enums of package sriov_hotplug.v1, by name. */
export const hotplugSchema = {
  nested: {
    VfBar: {
      fields: {
        index: u32(1),
        size: { type: 'uint64', id: 2 },
        is64Bit: { type: 'bool', id: 3 },
        prefetchable: { type: 'bool', id: 4 },
        address: { type: 'uint64', id: 5 },
      },
    },
    CarrierBar: {
      fields: {
        index: u32(1),
        vfBar: u32(2),
        offset: { type: 'uint64', id: 3 },
        size: { type: 'uint64', id: 4 },
      },
    },
    Carrier: {
      fields: {
        socketPath: { type: 'string', id: 1 },
        bars: { rule: 'repeated', type: 'CarrierBar', id: 2 },
      },
    },
    EnableBegin: {
      fields: {
        generation: u32(1),
        numVfs: u32(2),
        readyAfterMilliseconds: u32(3),
        placed: { type: 'bool', id: 4 },
      },
    },
    VfPlug: {
      fields: {
        vfIndex: u32(1),
        generation: u32(2),
        routingIdOffset: u32(3),
        vendorId: u32(4),
        deviceId: u32(5),
        bars: { rule: 'repeated', type: 'VfBar', id: 6 },
        msixVectors: u32(7),
        socketPath: { type: 'string', id: 8 },
        placementLost: { type: 'bool', id: 9 },
        carrier: { type: 'Carrier', id: 10 },
        slotCommand: u32(11),
      },
    },
    UnplugReason: {
      values: {
        unspecified: 0,
        guestDisabled: 1,
        pfReset: 2,
        vfLost: 3,
        shuttingDown: 4,
      },
    },
    VfUnplug: {
      fields: {
        vfIndex: u32(1),
        generation: u32(2),
        deadlineMilliseconds: u32(3),
        reason: { type: 'UnplugReason', id: 4 },
      },
    },
    EnableOutcome: {
      values: {
        unspecified: 0,
        enabled: 1,
        failed: 2,
      },
    },
    EnableEnd: {
      fields: {
        generation: u32(1),
        outcome: { type: 'EnableOutcome', id: 2 },
        text: { type: 'string', id: 3 },
      },
    },
    VfMemorySpace: {
      fields: {
        generation: u32(1),
        enabled: { type: 'bool', id: 2 },
        silentVfs: { rule: 'repeated', type: 'uint32', id: 3 },
      },
    },
    GetSlots: {
      fields: {
        firstVf: u32(1),
        count: u32(2),
      },
    },
    Slot: {
      fields: {
        vfIndex: u32(1),
        routingIdOffset: u32(2),
        bars: { rule: 'repeated', type: 'VfBar', id: 3 },
        placementLost: { type: 'bool', id: 4 },
        slotCommand: u32(5),
      },
    },
    Slots: {
      fields: {
        slots: { rule: 'repeated', type: 'Slot', id: 1 },
      },
    },
    HotplugResult: {
      values: {
        unspecified: 0,
        done: 1,
        refused: 2,
      },
    },
    HotplugReply: {
      fields: {
        vfIndex: u32(1),
        generation: u32(2),
        result: { type: 'HotplugResult', id: 3 },
        errno: u32(4),
        text: { type: 'string', id: 5 },
      },
    },
    GlueEvent: {
      fields: {
        what: { type: 'string', id: 1 },
        text: { type: 'string', id: 2 },
        at: { type: 'uint64', id: 3 },
        took: { type: 'uint64', id: 4 },
      },
    },
    GlueEvents: {
      fields: {
        events: { rule: 'repeated', type: 'GlueEvent', id: 1 },
        lost: u32(2),
      },
    },
    VfsTrapped: {
      fields: {
        generation: u32(1),
        firstVf: u32(2),
        text: { type: 'string', id: 3 },
      },
    },
  },
};
