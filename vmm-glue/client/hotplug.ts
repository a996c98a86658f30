// The hot-plug extension on the VMM's side: the server's announcements as an async iterator of events, each with the
// means to answer it. What the specification (protocol/hotplug/README.md) has a client refuse is refused here: whoever
// reads the events sees only those that can be meant.

import { Errno, errnoName, WireError } from '../../protocol/errno.ts';
import {
  decodeEnableBegin,
  decodeEnableEnd,
  decodeVfMemorySpace,
  decodeVfPlug,
  decodeVfUnplug,
  encodeHotplugReply,
} from '../../protocol/hotplug/codec.ts';
import { HotplugCommand } from '../../protocol/hotplug/commands.ts';
import type {
  EnableBegin,
  EnableEnd,
  HotplugReply,
  VfMemorySpace,
  VfPlug,
  VfUnplug,
} from '../../protocol/hotplug/messages.ts';
import { closeAll, type IncomingCommand } from './connection.ts';

/** How an event is answered; only the first answer counts. */
export interface Answer {
  /** Done: for a VfUnplug this promises that nothing of the VF is mapped or open any more. */
  done(): void;
  /** Refused; `errno` a Linux number of 1 to 4095, `text` for the person who reads the backend's log. Throws WireError for another number. */
  refuse(errno: number, text: string): void;
}

/** The guest has set VF Enable; a glue pauses the guest before it looks for its VFs. */
export interface EnableBeginEvent extends Answer {
  readonly kind: 'enableBegin';
  readonly message: EnableBegin;
}

/** A VF is there, or to a glue: will be. Its vfio-user session is on `takeFd()`, or behind `message.socketPath`. */
export interface VfPlugEvent extends Answer {
  readonly kind: 'vfPlug';
  readonly message: VfPlug;
  /** The connected socket of the VF's session, from now on the caller's; undefined where none came. */
  takeFd(): number | undefined;
}

/** A VF goes: close and unmap everything of it, then answer `done` within `message.deadlineMilliseconds`. */
export interface VfUnplugEvent extends Answer {
  readonly kind: 'vfUnplug';
  readonly message: VfUnplug;
}

/** The enable is over, well or not; takes no answer. A glue that paused the guest resumes it. */
export interface EnableEndEvent {
  readonly kind: 'enableEnd';
  readonly message: EnableEnd;
}

/** Only to a glue: the guest has switched memory of its VFs on or off. Done: where all is off, nothing lies over slots. */
export interface VfMemorySpaceEvent extends Answer {
  readonly kind: 'vfMemorySpace';
  readonly message: VfMemorySpace;
}

export type HotplugEvent =
  | EnableBeginEvent
  | VfPlugEvent
  | VfUnplugEvent
  | VfMemorySpaceEvent
  | EnableEndEvent;

/** Which hot-plug client this is; a `vmm` gets a way to each VF with its VfPlug. */
export type HotplugRole = 'vmm' | 'glue';

/** Events in the order of arrival, kept until somebody reads them. */
export class HotplugEvents implements AsyncIterable<HotplugEvent> {
  readonly #role: HotplugRole;
  readonly #broken: () => void;
  readonly #waiting: HotplugEvent[] = [];
  readonly #readers: ((result: IteratorResult<HotplugEvent>) => void)[] = [];
  /** VFs that were announced, and neither refused nor unplugged since, by index. */
  readonly #plugged = new Map<number, { readonly generation: number }>();
  #lastGeneration = 0;
  #ended = false;

  /** `broken` closes the connection, where a message that takes no answer cannot be read. */
  constructor(role: HotplugRole, broken: () => void) {
    this.#role = role;
    this.#broken = broken;
  }

  /** All iterators draw from one queue, so leaving a loop loses nothing: the next loop goes on from there. */
  [Symbol.asyncIterator](): AsyncIterator<HotplugEvent> {
    return {
      next: () =>
        new Promise((resolve) => {
          const event = this.#waiting.shift();
          if (event !== undefined) {
            resolve({ value: event, done: false });
          } else if (this.#ended) {
            resolve({ value: undefined, done: true });
          } else {
            this.#readers.push(resolve);
          }
        }),
    };
  }

  /** Takes one command of the server. What can't be meant is answered here and makes no event; its fds are closed. */
  accept(command: IncomingCommand): void {
    try {
      const event = this.#eventOf(command);
      if (event !== undefined) {
        this.#deliver(event);
      }
    } catch (error) {
      if (!(error instanceof WireError)) {
        throw error;
      }
      closeAll(command.fds);
      command.fail(error.errno);
      if (command.command === HotplugCommand.enableEnd) {
        this.#broken();
      }
    }
  }

  /** The connection is gone: readers see the end, not what can't be answered any more; sockets that nobody took are closed. */
  end(): void {
    this.#ended = true;
    for (const event of this.#waiting.splice(0)) {
      const fd = event.kind === 'vfPlug' ? event.takeFd() : undefined;
      if (fd !== undefined) {
        closeAll([fd]);
      }
    }
    for (const reader of this.#readers.splice(0)) {
      reader({ value: undefined, done: true });
    }
  }

  #deliver(event: HotplugEvent): void {
    const reader = this.#readers.shift();
    if (reader !== undefined) {
      reader({ value: event, done: false });
    } else {
      this.#waiting.push(event);
    }
  }

  /** Undefined where the message is answered already, or needs none. */
  #eventOf(command: IncomingCommand): HotplugEvent | undefined {
    const { body, fds } = command;
    switch (command.command) {
      case HotplugCommand.enableBegin: {
        const message = decodeEnableBegin(body);
        closeAll(fds);
        const answer = answerTo(command, 0, message.generation);
        if (this.#isStale(message.generation, answer)) {
          return undefined;
        }
        return { kind: 'enableBegin', message, ...answer };
      }
      case HotplugCommand.vfPlug:
        return this.#plugEvent(command, decodeVfPlug(body));
      case HotplugCommand.vfUnplug: {
        const message = decodeVfUnplug(body);
        closeAll(fds);
        const { vfIndex, generation } = message;
        const answer = answerTo(command, vfIndex, generation);
        this.#isOld(generation);
        if ((this.#plugged.get(vfIndex)?.generation ?? 0) > generation) {
          answer.done();
          return undefined;
        }
        this.#plugged.delete(vfIndex);
        return { kind: 'vfUnplug', message, ...answer };
      }
      case HotplugCommand.enableEnd: {
        const message = decodeEnableEnd(body);
        closeAll(fds);
        return this.#isOld(message.generation) ? undefined : { kind: 'enableEnd', message };
      }
      case HotplugCommand.vfMemorySpace: {
        const message = decodeVfMemorySpace(body);
        closeAll(fds);
        const answer = answerTo(command, 0, message.generation);
        if (this.#isStale(message.generation, answer)) {
          return undefined;
        }
        if (this.#role === 'vmm') {
          answer.done();
          return undefined;
        }
        return { kind: 'vfMemorySpace', message, ...answer };
      }
      default:
        throw new WireError('ENOSYS', `hot-plug: command ${command.command} is not known here`);
    }
  }

  #plugEvent(command: IncomingCommand, message: VfPlug): VfPlugEvent | undefined {
    const { fds } = command;
    const { vfIndex, generation, socketPath } = message;
    const plugged = this.#plugged;
    const plug = { generation };
    const answer = answerTo(command, vfIndex, generation, () => {
      closeAll(fds.splice(0));
      if (plugged.get(vfIndex) === plug) {
        plugged.delete(vfIndex);
      }
    });
    if (this.#role === 'glue') {
      closeAll(fds.splice(0));
    }
    const ways = fds.length + (socketPath === undefined ? 0 : 1);
    if (this.#role === 'vmm' && ways !== 1) {
      answer.refuse(Errno.EINVAL, `VF ${vfIndex}: ${ways} ways to it came, but one belongs there`);
      return undefined;
    }
    if (this.#isStale(generation, answer)) {
      return undefined;
    }
    if (plugged.has(vfIndex)) {
      answer.refuse(Errno.EEXIST, `VF ${vfIndex}: it was plugged, and not unplugged since`);
      return undefined;
    }
    plugged.set(vfIndex, plug);
    return { kind: 'vfPlug', message, takeFd: () => fds.pop(), ...answer };
  }

  /** Refuses what belongs to an enable before the latest. */
  #isStale(generation: number, answer: Answer): boolean {
    if (!this.#isOld(generation)) {
      return false;
    }
    const text = `generation ${generation}: generation ${this.#lastGeneration} was announced since`;
    answer.refuse(Errno.ESTALE, text);
    return true;
  }

  #isOld(generation: number): boolean {
    this.#lastGeneration = Math.max(this.#lastGeneration, generation);
    return generation < this.#lastGeneration;
  }
}

/** `refused` is called before a refusal goes out, unless another answer has gone before. */
function answerTo(
  command: IncomingCommand,
  vfIndex: number,
  generation: number,
  refused: () => void = () => {},
): Answer {
  let answered = false;
  const send = (reply: Pick<HotplugReply, 'result' | 'errno' | 'text'>): void => {
    if (answered) {
      return;
    }
    // What can't be sent is no answer: whoever gave a wrong errno can still give a right one.
    const body = encodeHotplugReply({ vfIndex, generation, ...reply });
    answered = true;
    if (reply.result === 'refused') {
      refused();
    }
    command.reply(body);
  };
  return {
    done: () => send({ result: 'done', errno: 0, text: '' }),
    refuse: (errno, text) => send({ result: 'refused', errno, text: text || errnoName(errno) }),
  };
}
