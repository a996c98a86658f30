// A fault rule from its text: `dma:error@every=100,function=vf2`. Pure; whatever is wrong is told with its position.

import type {
  ConditionKind,
  FaultLanguage,
  FaultName,
  FaultSpec,
  ValueKind,
} from '../device/faults.ts';

export interface FaultRule {
  /** As it was written. */
  readonly text: string;
  readonly name: FaultName;
  readonly spec: FaultSpec;
  /** Of `vf=2`. */
  readonly subject?: number;
  /** What is after the `=` of the fault itself: milliseconds, or what the fault takes. */
  readonly value: number;
  readonly conditions: Readonly<Record<string, number>>;
  /** At which characters values stand: the subject's as `subject`, others by their conditions. */
  readonly places: Readonly<Record<string, number>>;
  /** Conditions of the kind's own that this fault has, with what the rule says of them, if anything. */
  readonly own: readonly OwnCondition[];
}

/** A condition that the kind of device looks at itself. */
export interface OwnCondition {
  readonly name: string;
  readonly wanted: number | undefined;
  readonly concerns: NonNullable<ConditionKind['concerns']>;
}

/** What is wrong with a rule, at which character of it (from 0), and what to write instead. */
export interface RuleProblem {
  readonly position: number;
  readonly what: string;
  readonly fix: string;
}

export class RuleError extends Error implements RuleProblem {
  override readonly name = 'RuleError';
  readonly position: number;
  readonly what: string;
  readonly fix: string;

  constructor({ position, what, fix }: RuleProblem) {
    super(`character ${position + 1}: ${what}; ${fix}`);
    this.position = position;
    this.what = what;
    this.fix = fix;
  }
}

export const LONGEST_RULE = 200;

/** As people write it: `vf=N:absent`. */
function written(name: string): string {
  return name === 'vf:absent' ? 'vf=N:absent' : name;
}

/** A piece of a rule and where it starts. */
interface Piece {
  readonly text: string;
  readonly at: number;
}

/** @throws RuleError */
export function parseRule(text: string, language: FaultLanguage): FaultRule {
  if (text.length > LONGEST_RULE) {
    fail(LONGEST_RULE, 'the rule is too long', `say it in ${LONGEST_RULE} characters`);
  }
  const whole = { text, at: 0 };
  const [head, tail] = cut(whole, '@');
  const places: Record<string, number> = {};
  const { name, subject, value } = parseHead(head, language, places);
  const spec = language.faults[name]!;
  const conditions = tail === undefined ? {} : parseConditions(name, tail, language, places);
  const own = spec.conditions.flatMap((condition): OwnCondition[] => {
    const concerns = language.conditions[condition]?.concerns;
    return concerns === undefined
      ? []
      : [{ name: condition, wanted: conditions[condition], concerns }];
  });
  return {
    text,
    name,
    spec,
    ...(subject === undefined ? {} : { subject }),
    value,
    conditions,
    places,
    own,
  };
}

function parseHead(
  head: Piece,
  { faults }: FaultLanguage,
  places: Record<string, number>,
): { name: FaultName; subject: number | undefined; value: number } {
  const [before, effect] = cut(head, ':');
  const [subjectName, subjectValue] = effect === undefined ? [before] : cut(before, '=');
  const [last, valuePiece] = effect === undefined ? cut(before, '=') : cut(effect, '=');
  const name = effect === undefined ? last.text : `${subjectName.text}:${last.text}`;
  const spec = Object.hasOwn(faults, name) ? faults[name] : undefined;
  if (spec === undefined) {
    const names = Object.keys(faults).map(written);
    const subjects = names.filter((each) => each.split(/[:=]/)[0] === subjectName.text);
    const known = subjects.length > 0 && effect !== undefined;
    const at = known ? last.at : head.at;
    const wrong = known ? last.text : effect === undefined ? last.text : subjectName.text;
    fail(
      at,
      `there is no fault "${wrong}"`,
      `choose one of ${(known ? subjects : names).join(', ')}`,
    );
  }
  const end = head.at + head.text.length;
  places.subject = subjectValue?.at ?? head.at;
  return {
    name: name as FaultName,
    subject: parseOptional(spec.subject, subjectValue, before.at + before.text.length, undefined),
    value: parseOptional(spec.value, valuePiece, end, spec.defaultValue) ?? 0,
  };
}

/** A value that `kind` allows or wants; `end` is where it would be. */
function parseOptional(
  kind: ValueKind | undefined,
  piece: Piece | undefined,
  end: number,
  otherwise: number | undefined,
): number | undefined {
  if (kind === undefined) {
    return piece === undefined
      ? undefined
      : fail(piece.at - 1, 'no value belongs here', 'leave it out');
  }
  if (piece === undefined) {
    return otherwise ?? fail(end, 'a value is missing', `write = and ${kind.rule}`);
  }
  return parseValue(kind, piece);
}

function parseValue(kind: ValueKind, { text, at }: Piece): number {
  return kind.parse(text) ?? fail(at, `"${text}" will not do`, `write ${kind.rule}`);
}

function parseConditions(
  name: FaultName,
  tail: Piece,
  language: FaultLanguage,
  places: Record<string, number>,
): Record<string, number> {
  const allowed = language.faults[name]!.conditions;
  const found: Record<string, number> = {};
  for (const piece of split(tail, ',')) {
    const [key, value] = cut(piece, '=');
    const condition = allowed.find((each) => each === key.text);
    if (condition === undefined) {
      fail(key.at, `${name} has no condition "${key.text}"`, `choose one of ${allowed.join(', ')}`);
    }
    if (found[condition] !== undefined) {
      fail(key.at, `"${key.text}" is said twice`, 'say it once');
    }
    const kind = language.conditions[condition]!;
    if (value === undefined) {
      fail(key.at + key.text.length, 'a value is missing', `write = and ${kind.rule}`);
    }
    found[condition] = parseValue(kind, value);
    places[condition] = value.at;
  }
  return found;
}

/** At the first separator, which neither half has; the second half is undefined where there is none. */
function cut({ text, at }: Piece, separator: string): [Piece, Piece | undefined] {
  const index = text.indexOf(separator);
  return index < 0
    ? [{ text, at }, undefined]
    : [
        { text: text.slice(0, index), at },
        { text: text.slice(index + 1), at: at + index + 1 },
      ];
}

function split(piece: Piece, separator: string): Piece[] {
  const [first, rest] = cut(piece, separator);
  return rest === undefined ? [first] : [first, ...split(rest, separator)];
}

function fail(position: number, what: string, fix: string): never {
  throw new RuleError({ position, what, fix });
}
