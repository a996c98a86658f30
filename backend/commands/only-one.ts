// Options of which a command needs one, and takes no two.
import { UserError } from '../../protocol/user-error.ts';

/** The value of the one that is given, of `given` by the options' names; `fix`: what to give. @throws UserError */
export function onlyOne<T>(given: Readonly<Record<string, T | undefined>>, fix: string): T {
  const said = Object.entries(given).filter(([, value]) => value !== undefined);
  const [only, other] = said;
  if (only?.[1] === undefined) {
    throw new UserError(`one of ${list(Object.keys(given))} is needed`, fix, 2);
  }
  if (other !== undefined) {
    const names = said.map(([name]) => name);
    throw new UserError(`${names.join(' and ')} exclude each other`, 'leave out all but one', 2);
  }
  return only[1];
}

/** `--a, --b and --c`. */
function list(names: readonly string[]): string {
  return `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}
