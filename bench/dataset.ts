/**
 * The one table that every subject is measured on, and what is in it: patients, about 150 bytes a row, the same rows
 * for every tenant. Tenants are numbered from 1.
 */

/** How many tenants there are, and how many rows each begins with: ids 1 … rowsEach. */
export interface Dataset {
  readonly tenants: number;
  readonly rowsEach: number;
}

export interface Patient {
  readonly name: string;
  readonly dob: string;
  readonly note: string;
}

/** Rows that a range read gives. */
export const RANGE_ROWS = 100;

/** Fewer rows a tenant where there are many tenants: preparing must not take longer than measuring. */
export function datasetOf(tenants: number): Dataset {
  return { tenants, rowsEach: Math.max(500, Math.floor(50_000 / tenants)) };
}

const NOTES = [
  "Follow-up in six weeks; blood pressure 128 over 82, no change to the present medication was needed at all.",
  "Allergic to penicillin, as noted by the referring clinic; the ECG was unremarkable and the lungs were clear.",
  "Discharged on the third day after an uncomplicated procedure; to call if there is fever or swelling again.",
] as const;

export function patient(id: number): Patient {
  const day = String(1 + (id % 28)).padStart(2, "0");
  return {
    name: `Patient ${id}`,
    dob: `${1930 + (id % 90)}-0${1 + (id % 9)}-${day}`,
    note: NOTES[id % 3] as string,
  };
}

/** What an update writes; differs from turn to turn, so that none is a change to nothing. */
export function newNote(turn: number): string {
  return `${turn} ${NOTES[turn % 3]}`;
}
