/*
 * What the parts of the extension share.
 *
 *   guard.c      the SQL functions of the embedding process, and the entry point
 *   authorizer.c what a tenant's SQL may do, decided as SQLite compiles it
 *   watchdog.c   one thread that interrupts what runs past its deadline
 *   rowcodec.c   row images
 *   bounded.c    SQL functions whose own versions no deadline can stop
 *   like.c       LIKE and GLOB, likewise
 *   shared.c     a table of one connection read through another
 *   scrub.c      overwriting memory that was freed
 *   allowed.h    the lists of functions and pragmas
 *
 * The extension holds no cryptography and no tenant data. A connection belongs to one thread; only the fields said
 * to be the watchdog's are touched by another.
 */
#ifndef KIMBERLITE_GUARD_H
#define KIMBERLITE_GUARD_H

#include "sqlite3ext.h"

#include <stddef.h>
#include <stdint.h>

/* Of these INSERT is only entered: it is WRITE, and kimberlite_leave tells nobody's rowid for one of this statement. */
enum { TRUSTED = 0, WRITE = 1, READ = 2, REPLAY = 3, INSERT = 4 };
enum { SECRET_SIZE = 16 };

/* Bits of kimberlite_leave. */
enum {
  DEFERRED_FKS = 1, EXPIRED = 2, SCHEMA = 4, ALTER = 8, STATISTICS = 16, VTABLE = 32, ROWS = 64,
  PRAGMA_SET = 128, SEQUENCE = 256, INSERTS = 512, ASKS_ROWID = 1024, OUT_OF_MEMORY = 2048, SIZE_SHIFT = 16
};

/* Why the watchdog interrupted what ran. */
enum { IN_TIME = 0, LATE = 1, STARVED = 2 };

/* The guard of one connection. */
typedef struct Guard Guard;
typedef struct Source Source;
struct Guard {
  sqlite3 *db;
  int references;          /* SQL functions that point here */
  int ready;               /* the secret is set */
  int mode;                /* TRUSTED, WRITE, READ or REPLAY: trusted, with a deadline */
  int seen;                /* bits of what was permitted since enter */
  int schema_view;         /* number of the expression that may read the schema table; 0: anybody may */
  int filtered;            /* that expression was compiled since enter */
  int asked;               /* something was compiled since enter */
  int marked;              /* last_insert_rowid is hidden behind NO_ROWID */
  sqlite3_int64 rowid;     /* what it was */
  sqlite3_stmt *newest;    /* the connection's newest statement at enter */
  unsigned char secret[SECRET_SIZE];
  char denied[201];        /* the first denial since enter */
  Source *sources;         /* what this connection offers to others */
  Guard *next, **link;     /* the watchdog's: place among the armed, while link is not 0 */
  int64_t armed_ns, deadline_ns; /* the watchdog's */
  int expired;             /* the watchdog's: IN_TIME, LATE or STARVED; the authorizer looks at it */
};

/* The guard, if `given` is its secret; else 0 with the error set. */
Guard *kimberlite_authenticate(sqlite3_context *context, sqlite3_value *given);

/* An authorizer callback (sqlite3_set_authorizer) over a Guard. */
int kimberlite_authorize(void *guard, int action, const char *a, const char *b, const char *db, const char *within);

/* Forgets an earlier expiry and, with a deadline above 0, arms it. 0 when there is no thread to watch. */
int kimberlite_arm(Guard *g, sqlite3_int64 deadline_ms);

/* After it returns no interrupt comes. Returns IN_TIME, LATE if the deadline passed since kimberlite_arm, or STARVED. */
int kimberlite_disarm(Guard *g);

/*
 * Bytes of the process's heap of C from which on the watchdog stops what has run longest, the last value above 0 that was
 * set. Does nothing where the allocator does not tell how much it has given out.
 */
void kimberlite_limit_memory(sqlite3_int64 bytes);

/* Registers kimberlite_row and kimberlite_col; returns an SQLite result code. */
int kimberlite_register_rowcodec(sqlite3 *db);

/* Registers instr, replace, trim, ltrim, rtrim and unhex; returns an SQLite result code. */
int kimberlite_register_bounded(sqlite3 *db);
int kimberlite_register_like(sqlite3 *db);

/* The module kimberlite_shared; the SQL functions that prepare an offer to it; the end of a connection's offers. */
int kimberlite_register_shared(Guard *g);
void kimberlite_offer(sqlite3_context *context, int argc, sqlite3_value **argv);
void kimberlite_collation(sqlite3_context *context, int argc, sqlite3_value **argv);
void kimberlite_withdraw(Guard *g);

/* Overwrites the freed memory of this thread's heap and of threads that have ended; 0 where it cannot. */
int kimberlite_scrub_memory(void);

#endif
