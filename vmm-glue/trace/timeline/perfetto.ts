// A timeline in Perfetto's TrackEvent protobuf, for ui.perfetto.dev and its SQL: one track a lane, marks as instants,
// stretches as slices, arrows as flows. Field numbers are those of perfetto's trace.proto.

import protobuf from 'protobufjs/minimal.js';
import { MARK_KINDS, type Stretch, type Timeline } from './timeline.ts';

const { Writer } = protobuf;

const Packet = { timestamp: 8, sequenceId: 10, trackEvent: 11, trackDescriptor: 60 } as const;
const Track = { uuid: 1, name: 2 } as const;
const TrackEvent = {
  type: 9,
  trackUuid: 11,
  categories: 22,
  name: 23,
  debug: 4,
  flowIds: 47,
} as const;
const DebugAnnotation = { name: 10, stringValue: 6 } as const;
const EventType = { sliceBegin: 1, sliceEnd: 2, instant: 3 } as const;
const TRACE_PACKET = 1;
const SEQUENCE = 1;

type Fill = (writer: protobuf.Writer) => void;

function message(writer: protobuf.Writer, field: number, fill: Fill): void {
  fill(writer.uint32((field << 3) | 2).fork());
  writer.ldelim();
}

function text(writer: protobuf.Writer, field: number, value: string): void {
  writer.uint32((field << 3) | 2).string(value);
}

function number(writer: protobuf.Writer, field: number, value: number): void {
  writer.uint32(field << 3).uint64(value);
}

/** Slices of one track are nested or apart: each stretch gets the first row of its lane in which no other is left open. */
function rowsOf(
  stretches: readonly Stretch[],
): { readonly row: number; readonly stretch: Stretch }[] {
  const ends = new Map<number, number[]>();
  return stretches
    .toSorted((one, other) => one.from - other.from)
    .map((stretch) => {
      const rows = ends.get(stretch.lane) ?? [];
      ends.set(stretch.lane, rows);
      const free = rows.findIndex((end) => end <= stretch.from);
      const row = free < 0 ? rows.length : free;
      rows[row] = stretch.to;
      return { row, stretch };
    });
}

export function perfetto(timeline: Timeline): Uint8Array {
  const { lanes, marks, arrows, texts } = timeline;
  const stretches = rowsOf(timeline.stretches);
  const out = Writer.create();
  const uuid = (lane: number, row = 0): number => 1 + lane + row * lanes.length;
  const flows = new Map<string, number[]>();
  arrows.forEach(({ from, to }, flow) => {
    for (const { lane, time } of [from, to]) {
      const key = `${lane} ${time}`;
      flows.set(key, [...(flows.get(key) ?? []), flow + 1]);
    }
  });
  const tracks = new Map(lanes.map((name, lane) => [uuid(lane), name]));
  for (const { row, stretch } of stretches) {
    tracks.set(uuid(stretch.lane, row), lanes[stretch.lane]!);
  }
  for (const [id, name] of tracks) {
    message(out, TRACE_PACKET, (packet) =>
      message(packet, Packet.trackDescriptor, (track) => {
        number(track, Track.uuid, id);
        text(track, Track.name, name);
      }),
    );
  }
  const event = (time: number, lane: number, type: number, fill: Fill, row = 0): void =>
    message(out, TRACE_PACKET, (packet) => {
      number(packet, Packet.timestamp, Math.max(0, Math.round(time)));
      number(packet, Packet.sequenceId, SEQUENCE);
      message(packet, Packet.trackEvent, (track) => {
        number(track, TrackEvent.type, type);
        number(track, TrackEvent.trackUuid, uuid(lane, row));
        fill(track);
        if (type !== EventType.sliceEnd) {
          for (const flow of flows.get(`${lane} ${time}`) ?? []) {
            track.uint32((TrackEvent.flowIds << 3) | 1).fixed64(flow);
          }
        }
      });
    });
  for (const { row, stretch } of stretches) {
    const { lane, from, to, text: name } = stretch;
    event(from, lane, EventType.sliceBegin, (track) => text(track, TrackEvent.name, name), row);
    event(to, lane, EventType.sliceEnd, () => {}, row);
  }
  marks.time.forEach((time, i) => {
    const lane = marks.lane[i]!;
    event(time, lane, EventType.instant, (track) => {
      text(track, TrackEvent.categories, MARK_KINDS[marks.kind[i]!]!);
      text(track, TrackEvent.name, texts[marks.what[i]!]!);
      message(track, TrackEvent.debug, (annotation) => {
        text(annotation, DebugAnnotation.name, 'text');
        text(annotation, DebugAnnotation.stringValue, texts[marks.text[i]!]!);
      });
    });
  });
  return out.finish();
}
