// The hot-plug extension on the VMM's side: the server's announcements as an async iterator of events, each with the
// means to answer it. See protocol/hotplug/README.md for what the messages promise.

import { Errno, errnoName } from '../../protocol/errno.ts';
import {
  decodeEnableBegin,
  decodeEnableEnd,
  decodeVfPlug,
  decodeVfUnplug,
  type EnableBegin,
  type EnableEnd,
  encodeHotplugReply,
  HotplugCommand,
  type HotplugReply,
  type VfPlug,
  type VfUnplug,
} from '../../protocol/hotplug/codec.ts';
import { closeAll, type IncomingCommand } from './connection.ts';

/** How an event is answered; only the first answer counts. */
export interface Answer {
  /** Done: for a VfUnplug this promises that nothing of the VF is mapped or open any more. */
  done(): void;
  /** Refused; `errno` a Linux number, `text` for the person who reads the backend's log. */
  refuse(errno: number, text: string): void;
}

/** The guest has set VF Enable; a glue pauses the guest before it answers. */
export interface EnableBeginEvent extends Answer {
  readonly kind: 'enableBegin';
  readonly message: EnableBegin;
}

/** A VF is there. Its vfio-user session is on `takeFd()`, or behind `message.socketPath`. */
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

export type HotplugEvent = EnableBeginEvent | VfPlugEvent | VfUnplugEvent | EnableEndEvent;

/** Events in the order of arrival, kept until somebody reads them. */
export class HotplugEvents implements AsyncIterable<HotplugEvent> {
  readonly #waiting: HotplugEvent[] = [];
  readonly #readers: ((result: IteratorResult<HotplugEvent>) => void)[] = [];
  #ended = false;

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

  /** Takes one command of the server. Malformed ones and ones that are none of hot-plug's get an error reply. */
  accept(command: IncomingCommand): void {
    let event: HotplugEvent | undefined;
    try {
      event = eventOf(command);
    } catch {
      closeAll(command.fds);
      command.fail(Errno.EPROTO);
      return;
    }
    if (event === undefined) {
      closeAll(command.fds);
      command.fail(Errno.ENOSYS);
      return;
    }
    const reader = this.#readers.shift();
    if (reader !== undefined) {
      reader({ value: event, done: false });
    } else {
      this.#waiting.push(event);
    }
  }

  /** The connection is gone: readers see the end, and sockets that nobody took are closed. */
  end(): void {
    this.#ended = true;
    for (const event of this.#waiting) {
      if (event.kind === 'vfPlug') {
        closeAll(fdsOf(event));
      }
    }
    for (const reader of this.#readers.splice(0)) {
      reader({ value: undefined, done: true });
    }
  }
}

function fdsOf(event: VfPlugEvent): number[] {
  const fd = event.takeFd();
  return fd === undefined ? [] : [fd];
}

function eventOf(command: IncomingCommand): HotplugEvent | undefined {
  const { body, fds } = command;
  switch (command.command) {
    case HotplugCommand.enableBegin: {
      const message = decodeEnableBegin(body);
      closeAll(fds);
      return { kind: 'enableBegin', message, ...answerTo(command, 0, message.generation) };
    }
    case HotplugCommand.vfPlug:
      return plugEvent(command, decodeVfPlug(body));
    case HotplugCommand.vfUnplug: {
      const message = decodeVfUnplug(body);
      closeAll(fds);
      return {
        kind: 'vfUnplug',
        message,
        ...answerTo(command, message.vfIndex, message.generation),
      };
    }
    case HotplugCommand.enableEnd: {
      const message = decodeEnableEnd(body);
      closeAll(fds);
      return { kind: 'enableEnd', message };
    }
    default:
      return undefined;
  }
}

function plugEvent(command: IncomingCommand, message: VfPlug): VfPlugEvent {
  const answer = answerTo(command, message.vfIndex, message.generation);
  let [fd, ...surplus]: (number | undefined)[] = command.fds;
  closeAll(surplus.filter((each) => each !== undefined));
  const takeFd = (): number | undefined => {
    const taken = fd;
    fd = undefined;
    return taken;
  };
  return {
    kind: 'vfPlug',
    message,
    takeFd,
    done: answer.done,
    refuse(errno, text) {
      const unwanted = takeFd();
      closeAll(unwanted === undefined ? [] : [unwanted]);
      answer.refuse(errno, text);
    },
  };
}

function answerTo(command: IncomingCommand, vfIndex: number, generation: number): Answer {
  let answered = false;
  const send = (reply: HotplugReply): void => {
    if (!answered) {
      answered = true;
      command.reply(encodeHotplugReply(reply));
    }
  };
  return {
    done: () => send({ vfIndex, generation, result: 'done', errno: 0, text: '' }),
    refuse: (errno, text) =>
      send({ vfIndex, generation, result: 'refused', errno, text: text || errnoName(errno) }),
  };
}
