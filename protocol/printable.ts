// Text that came from a guest or a client, made harmless for a terminal.

/**
 * What a terminal shows and never obeys: a peer's words may hold line ends and escape sequences. Such characters become
 * the escapes of JSON.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) =>
    [...Array(character.length).keys()]
      .map((at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`)
      .join(''),
  );
}
