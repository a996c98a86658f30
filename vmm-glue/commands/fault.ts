// `fault`: has things go wrong in a backend that runs, and lists and ends what goes wrong.
import { Argument, Command } from 'commander';
import type { FaultStatus, FaultsRequest } from '../../protocol/hotplug/status.ts';
import { parseWholeNumber } from '../../protocol/launch/option-values.ts';
import { printable } from '../../protocol/printable.ts';
import { UserError } from '../../protocol/user-error.ts';
import { askBackend, unanswered } from '../client/observer.ts';

const ACTIONS = ['add', 'list', 'clear'] as const;
type Action = (typeof ACTIONS)[number];

export function faultCommand(): Command {
  return new Command('fault')
    .description(
      'Has things go wrong on purpose in a running backend: arms a rule, lists what is armed and how often it fired, clears one ' +
        'or all. The language of rules is in backend/faults/README.md; `serve --fault=RULE` arms one from the start.',
    )
    .addArgument(new Argument('<action>', 'what to do').choices(ACTIONS))
    .argument('[what]', 'add: the rule; clear: the number of one (default: all)')
    .requiredOption('--socket-path <path>', 'the PF’s socket')
    .addHelpText(
      'after',
      '\nExamples:\n' +
        "  vfio-user-sriov fault add 'dma:error@every=100' --socket-path=/tmp/pf.sock\n" +
        '  vfio-user-sriov fault clear --socket-path=/tmp/pf.sock\n',
    )
    .action(fault);
}

async function fault(
  action: Action,
  what: string | undefined,
  { socketPath }: { readonly socketPath: string },
): Promise<void> {
  const request = requestFor(action, what);
  const { refusal, faults } = await askBackend(socketPath, (client) =>
    client.faults(request).catch((error: unknown) => {
      throw unanswered(socketPath, error);
    }),
  );
  if (refusal !== null) {
    const { position, fix } = refusal;
    const place =
      position === null || what === undefined ? undefined : { text: what, position: position };
    throw new UserError(`fault ${action}: ${refusal.what}`, fix, 2, place);
  }
  if (action === 'list' && faults.length === 0) {
    process.stderr.write('no fault is armed\n');
  }
  process.stdout.write(faults.map((each) => `${printable(lineOf(each))}\n`).join(''));
}

/** @throws UserError */
function requestFor(action: Action, what: string | undefined): FaultsRequest {
  if (action === 'list') {
    return {};
  }
  if (action === 'add') {
    if (what === undefined) {
      throw new UserError('fault add: which?', 'give a rule, such as dma:error@every=100', 2);
    }
    return { add: what };
  }
  const id = what === undefined ? 0 : parseWholeNumber(what, 1);
  if (id === undefined) {
    throw new UserError(
      `fault clear: ${what} is no number of a fault`,
      'see `fault list`, or give none to clear all',
      2,
    );
  }
  return { clear: id };
}

function lineOf({ id, rule, fired }: FaultStatus): string {
  return `${id}  ${rule}  fired ${fired} ${fired === 1 ? 'time' : 'times'}`;
}
