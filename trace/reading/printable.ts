// Text that came from a guest or a client, made harmless for a terminal: control characters become what people write
// for them, so that nothing moves the cursor, rings a bell or starts a line of its own.

/** `text` with every control character, and every other character that is not to be shown, spelled out. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\u2028\u2029]/gu, (character) => {
    const code = character.codePointAt(0)!;
    return `\\u{${code.toString(16)}}`;
  });
}
