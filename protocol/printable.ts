// Text from somebody else on its way to a terminal or into a log: what a client, a VMM or a guest has written must not
// move the cursor, set a title, or pretend to be a line of ours. The one place that escapes.

/** Controls (C0, DEL, C1), format characters such as those that turn the direction of text, and line separators. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** The text with each unprintable character as JSON escapes it, `\u001b`: one line, whatever it was. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, escaped);
}

/** As JSON.stringify, which leaves the control characters from 0x7f on as they are. */
export function printableJson(
  value: unknown,
  replacer?: (key: string, value: unknown) => unknown,
): string {
  return printable(JSON.stringify(value, replacer));
}

function escaped(character: string): string {
  return character
    .split('')
    .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
    .join('');
}
