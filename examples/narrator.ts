// Tells the story of a demo on a terminal: chapters, checks that must be true, and quoted output. Colours only where
// the terminal has them (or FORCE_COLOR asks for them).

const { NO_COLOR = '', FORCE_COLOR } = process.env;
const COLOURED =
  NO_COLOR === '' &&
  (FORCE_COLOR === undefined
    ? process.stdout.isTTY === true
    : FORCE_COLOR !== '0' && FORCE_COLOR !== 'false');

function paint(code: number): (text: string) => string {
  return (text) => (COLOURED ? `\u001b[${code}m${text}\u001b[0m` : text);
}

const bold = paint(1);
const dim = paint(2);
const red = paint(31);
const green = paint(32);
const cyan = paint(36);

/** A check that was not true: the demo has failed. */
export class CheckFailed extends Error {}

export class Narrator {
  #chapters = 0;
  #checks = 0;
  readonly #started = performance.now();

  title(text: string, subtitle: string): void {
    process.stdout.write(`\n${bold(text)}\n${dim(subtitle)}\n`);
  }

  chapter(text: string): void {
    this.#chapters += 1;
    process.stdout.write(`\n${cyan(String(this.#chapters))}  ${bold(text)}\n`);
  }

  /** Prints what was checked; throws CheckFailed where it is not true. `detail` is printed beside it. */
  check(isTrue: boolean, text: string, detail = ''): void {
    const mark = isTrue ? green('✓') : red('✗');
    process.stdout.write(`   ${mark} ${text}${detail === '' ? '' : `  ${dim(detail)}`}\n`);
    if (!isTrue) {
      throw new CheckFailed(text);
    }
    this.#checks += 1;
  }

  /** Output of something else, set apart. */
  quote(text: string): void {
    for (const line of text.trimEnd().split('\n')) {
      process.stdout.write(`     ${dim(line)}\n`);
    }
  }

  /** The last line of a demo in which everything was true. */
  end(): void {
    const seconds = ((performance.now() - this.#started) / 1000).toFixed(1);
    process.stdout.write(
      `\n${green(bold(`All ${this.#checks} checks are true`))}${dim(`, in ${seconds} s.`)}\n\n`,
    );
  }

  /** The last lines of one that failed. */
  failed(error: unknown, log: string): void {
    const reason = error instanceof CheckFailed ? `not true: ${error.message}` : String(error);
    process.stdout.write(`\n${red(bold('The demo failed'))}: ${reason}\n`);
    if (log !== '') {
      process.stdout.write(`${dim('the log of the backend:')}\n`);
      this.quote(log);
    }
  }
}
