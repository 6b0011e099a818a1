/* What driver.c and fuzz.c share. */
#ifndef KIMBERLITE_FUZZ_H
#define KIMBERLITE_FUZZ_H

#include "sqlite3.h"

#include <stdint.h>

void fail(const char *format, ...);
double seconds_now(void);
void execute(sqlite3 *db, const char *sql);
int call(sqlite3 *db, const char *sql, int *result);
sqlite3 *open_guarded(const char *path);
void enter(sqlite3 *db, int mode, int deadline_ms);
int leave(sqlite3 *db);

/* Both fuzzers, half of the time each, in the current directory, which must be empty. */
void fuzz(uint64_t seed, double seconds);

#endif
