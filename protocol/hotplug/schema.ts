// hotplug.proto as a protobufjs descriptor, so that no file has to be found and parsed at run time.
// A test keeps the two equal; change the .proto first.

const u32 = (id: number) => ({ type: 'uint32', id });

/** Messages and enums of package sriov_hotplug.v1, by name. */
export const hotplugSchema = {
  nested: {
    VfBar: {
      fields: {
        index: u32(1),
        size: { type: 'uint64', id: 2 },
        is_64bit: { type: 'bool', id: 3 },
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
      },
    },
    UnplugReason: {
      values: {
        UNPLUG_REASON_UNSPECIFIED: 0,
        UNPLUG_REASON_GUEST_DISABLED: 1,
        UNPLUG_REASON_PF_RESET: 2,
        UNPLUG_REASON_VF_LOST: 3,
        UNPLUG_REASON_SHUTTING_DOWN: 4,
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
        ENABLE_OUTCOME_UNSPECIFIED: 0,
        ENABLE_OUTCOME_ENABLED: 1,
        ENABLE_OUTCOME_FAILED: 2,
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
      },
    },
    HotplugResult: {
      values: {
        HOTPLUG_RESULT_UNSPECIFIED: 0,
        HOTPLUG_RESULT_DONE: 1,
        HOTPLUG_RESULT_REFUSED: 2,
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
  },
};
