// How long a test waits for what has to come, one time a kind. They are long, because a machine that others use too
// starves a test now and then, and cost nothing where things go well. The linter asks every wait for one of them.

/** What this process does, or another that is up already. */
export const SOON = { timeout: 10_000, interval: 10 } as const;

/** What takes the start or the end of a program. */
export const BY_A_PROGRAM = { timeout: 15_000, interval: 50 } as const;

/** What a guest, or a program beside one, does: it has a core of its own at best, and emulated. */
export const BY_A_GUEST = { timeout: 60_000, interval: 100 } as const;
