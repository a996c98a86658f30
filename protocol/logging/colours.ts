// Whether to colour what goes to a terminal, by the conventions of no-color.org and of FORCE_COLOR.

/** `isTerminal`: of the stream that is written to. */
export function wantsColours(environment: NodeJS.ProcessEnv, isTerminal: boolean): boolean {
  const { NO_COLOR: no, FORCE_COLOR: force, TERM: terminal } = environment;
  if (no !== undefined && no !== '') {
    return false;
  }
  if (force !== undefined) {
    return force !== '0' && force !== 'false';
  }
  return isTerminal && terminal !== 'dumb';
}
