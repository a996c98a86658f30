// What a socket of the backend stands for, and a session on one as far as hot-plug and the status need it.
// server/session.ts has the sessions themselves.

import type { GetSlots, Slot, VfsTrapped } from '../../protocol/hotplug/messages.ts';
import type { FaultStatus, TraceState } from '../../protocol/hotplug/status.ts';
import type { Frame } from '../../protocol/vfio-user/framing.ts';
import type { AgreedCapabilities } from '../../protocol/vfio-user/negotiation.ts';
import type { ServedFunction } from '../device/served-function.ts';

/** What a socket stands for. */
export interface Endpoint {
  readonly function: ServedFunction;
  /** The VF's own connection, as handed over in VfPlug: nothing is hidden from its client. */
  readonly native: boolean;
  /** Only the PF's: takes a client that negotiated hot-plug, and gives it up again. */
  readonly hotplug?: HotplugEndpoint;
  /** Only the PF's: the device's state as JSON. */
  readonly status?: () => string;
  /** Only the PF's: turns its trace on and off. */
  readonly tracing?: TraceSwitch | undefined;
  /** Only the PF's: adds and clears faults. */
  readonly faults?: FaultSwitch | undefined;
}

export interface TraceSwitch {
  /** Records into the file from now on, as long as it is; takes over the fd. @throws WireError EBUSY | EINVAL */
  start(fd: number): void;
  stop(): void;
  /** Records beside it, for a client that watches, until what it gives is called; takes over the fd. @throws UserError */
  watch(fd: number): () => void;
  readonly state: TraceState;
}

export interface FaultSwitch {
  /** Why it cannot be armed, if so. */
  add(rule: string): FaultRefusal | undefined;
  /** One, or all; false where there is none of this ID. */
  clear(id?: number): boolean;
  readonly status: readonly FaultStatus[];
}

/** `position`: the character of the rule that is at fault, from 0. */
export interface FaultRefusal {
  readonly position: number;
  readonly what: string;
  readonly fix: string;
}

export interface HotplugEndpoint {
  attach(session: PeerSession, role: 'vmm' | 'glue'): void;
  detach(session: PeerSession): void;
  /** Its client, a glue, maps nothing of these VFs. */
  vfsTrapped(message: VfsTrapped): void;
  /** Where slots of VFs that are off belong; none where VFs are on, or have no place. */
  slots(message: GetSlots): readonly Slot[];
}

/** What a connection turned out to be for: a device's client, or a bystander of the PF's socket. */
export type Role = 'device' | 'glue' | 'observer';

/** Takes a reply, or undefined when the client has gone; false: this is not the answer, go on waiting. */
export type ReplyTaker = (frame: Frame | undefined) => boolean;

export interface PeerSession {
  readonly endpoint: Endpoint;
  readonly connection: { readonly carriesFds: boolean };
  readonly agreed: AgreedCapabilities | undefined;
  readonly role: Role;
  /** Received so far. */
  readonly messages: number;
  /** Sends a command of the server's own; `done` gets the reply, or undefined when the client has gone. */
  command(command: number, body: Uint8Array, fds: readonly number[], done?: ReplyTaker): void;
  /** Ends the session from this side. */
  close(): void;
}
