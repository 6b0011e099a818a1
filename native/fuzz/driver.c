/*
 * Runs the guard inside one statically linked SQLite, for the sanitizers.
 *
 *   driver exercise            every SQL function, every wrong argument, closing at awkward moments
 *   driver threads SECONDS     the watchdog with a connection a thread, opened and closed all the time
 *   driver fuzz SEED SECONDS   hostile row images and hostile SQL
 *
 * Ends with abort() at the first broken promise, after it printed the seed, the round and the statement.
 */
#include "sqlite3.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fuzz.h"

int sqlite3_guard_init(sqlite3 *db, char **error, const void *api);

static const unsigned char SECRET[16] = "0123456789abcdef";

void fail(const char *format, ...){
  va_list arguments;
  va_start(arguments, format);
  fputs("guard check failed: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  abort();
}

double seconds_now(void){
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec+(double)t.tv_nsec/1e9;
}

void execute(sqlite3 *db, const char *sql){
  char *error = 0;
  if( sqlite3_exec(db, sql, 0, 0, &error)!=SQLITE_OK ) fail("%s: %s", sql, error);
}

/* Runs a call of the guard with the secret as ?1; returns the result code of the step and the integer result. */
int call(sqlite3 *db, const char *sql, int *result){
  sqlite3_stmt *statement = 0;
  int rc = sqlite3_prepare_v2(db, sql, -1, &statement, 0);
  if( rc==SQLITE_INTERRUPT || rc==SQLITE_AUTH ) return rc; /* a deadline may fall into a compilation */
  if( rc!=SQLITE_OK ) fail("%s: %s", sql, sqlite3_errmsg(db));
  sqlite3_bind_blob(statement, 1, SECRET, sizeof SECRET, SQLITE_STATIC);
  rc = sqlite3_step(statement);
  if( rc==SQLITE_ROW && result ) *result = sqlite3_column_int(statement, 0);
  sqlite3_finalize(statement);
  return rc;
}

sqlite3 *open_guarded(const char *path){
  sqlite3 *db = 0;
  char *error = 0;
  if( sqlite3_open(path, &db)!=SQLITE_OK ) fail("open %s", path);
  if( sqlite3_guard_init(db, &error, 0)!=SQLITE_OK_LOAD_PERMANENTLY ) fail("init");
  if( sqlite3_guard_init(db, &error, 0)!=SQLITE_OK_LOAD_PERMANENTLY ) fail("second init");
  if( call(db, "SELECT kimberlite_setup(?1, 1000000, 100000, 0)", 0)!=SQLITE_ROW ) fail("setup: %s", sqlite3_errmsg(db));
  return db;
}

void enter(sqlite3 *db, int mode, int deadline_ms){
  char sql[64];
  snprintf(sql, sizeof sql, "SELECT kimberlite_enter(?1, %d, %d)", mode, deadline_ms);
  if( call(db, sql, 0)!=SQLITE_ROW ) fail("enter: %s", sqlite3_errmsg(db));
}

int leave(sqlite3 *db){
  int bits = -1;
  for(int i=0; i<1000; i++){
    int rc = call(db, "SELECT kimberlite_leave(?1)", &bits);
    if( rc==SQLITE_ROW ) return bits;
    if( rc!=SQLITE_INTERRUPT ) break;
  }
  fail("leave: %s", sqlite3_errmsg(db));
  return 0;
}

static void expect_error(sqlite3 *db, const char *sql){
  int rc = call(db, sql, 0) & 0xff;
  if( rc!=SQLITE_ERROR && rc!=SQLITE_AUTH && rc!=SQLITE_MISUSE && rc!=SQLITE_TOOBIG ) fail("%s gave %d", sql, rc);
}

#define ENDLESS "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c) SELECT count(*) FROM c"

static int rows_of(sqlite3 *db, const char *sql, int *rc){
  sqlite3_stmt *statement = 0;
  int rows = 0;
  *rc = sqlite3_prepare_v2(db, sql, -1, &statement, 0);
  while( *rc==SQLITE_OK || *rc==SQLITE_ROW ){
    *rc = sqlite3_step(statement);
    if( *rc!=SQLITE_ROW ) break;
    rows++;
    for(int i=0; i<sqlite3_column_count(statement); i++) sqlite3_column_text(statement, i);
  }
  sqlite3_finalize(statement);
  return rows;
}

#define OFFER(query, kinds, stable) \
  "SELECT kimberlite_offer(?1, 'CREATE TABLE t (id INTEGER, name TEXT COLLATE NOCASE, x)', '" query "', '" kinds "', " stable ")"

/* A table shared between two connections: comparisons handed on, offers not taken, closing in the wrong order. */
static void exercise_shared(void){
  static const char *const READS[] = {
      "SELECT * FROM t WHERE id = 7", "SELECT * FROM t WHERE id = '7' OR name = 'N8' OR id > 95", "SELECT rowid, * FROM t",
      "SELECT * FROM t a JOIN t b ON a.id = b.id AND a.name = b.name", "SELECT * FROM t WHERE x = 1 AND name > 'n5'",
      "SELECT * FROM t WHERE id IN (1, 2, NULL, 'x', x'00')", "SELECT * FROM t WHERE id < 5 AND id < 4 AND id <= 3 AND id > 0",
      "SELECT * FROM t WHERE name = x'6e37' COLLATE RTRIM", "SELECT max(lag) FROM (SELECT lag(id) OVER (ORDER BY x) AS lag FROM t)",
  };
  static const char *const OFFERS[] = {
      OFFER("SELECT id AS c0, name AS c1, x AS c2, rowid FROM main.owned", "nt-", "1"),
      OFFER("SELECT id AS c0, name AS c1, x AS c2 FROM main.owned LIMIT 50", "nt-", "0"),
      OFFER("SELECT id AS c0 FROM main.owned", "nt-", "1"), OFFER("SELECT * FROM nothing", "nt-", "0"),
      OFFER("SELECT abs(-9223372036854775807 - id) AS c0, name AS c1, x AS c2 FROM main.owned", "nt-", "0"),
  };
  for(size_t o=0; o<sizeof OFFERS/sizeof OFFERS[0]; o++){
    sqlite3 *owner = open_guarded(":memory:"), *reader = open_guarded(":memory:");
    int rc = 0;
    execute(owner, "CREATE TABLE owned (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE, x); WITH RECURSIVE c(n) AS "
        "(SELECT 1 UNION ALL SELECT n+1 FROM c LIMIT 100) INSERT INTO owned SELECT n, 'n'||n, zeroblob(n) FROM c");
    rows_of(reader, "CREATE VIRTUAL TABLE t USING kimberlite_shared", &rc);
    if( rc==SQLITE_DONE ) fail("a table of no offer");
    if( call(owner, OFFERS[0], 0)!=SQLITE_ROW || call(owner, OFFERS[o], 0)!=SQLITE_ROW ) fail("offer");
    execute(reader, "CREATE VIRTUAL TABLE t USING kimberlite_shared");
    rows_of(reader, "SELECT * FROM t", &rc);
    if( rc!=SQLITE_ERROR ) fail("read while the owner is trusted: %d", rc);
    for(size_t i=0; i<sizeof READS/sizeof READS[0]; i++){
      enter(owner, 2, 10000);
      enter(reader, 2, 10000);
      int rows = rows_of(reader, READS[i], &rc);
      if( o<2 && (rc!=SQLITE_DONE || (i==0 && rows!=1)) ) fail("%s gave %d, %d rows", READS[i], rc, rows);
      if( o>1 && rc!=SQLITE_ERROR ) fail("%s gave %d of a bad offer", READS[i], rc);
      leave(reader);
      leave(owner);
    }
    call(owner, OFFERS[0], 0); /* not taken */
    if( o%2 ) sqlite3_close_v2(owner);
    rows_of(reader, "SELECT * FROM t", &rc);
    if( rc!=SQLITE_ERROR ) fail("read of an owner that is gone, or not entered: %d", rc);
    sqlite3_close_v2(reader);
    if( !(o%2) ) sqlite3_close_v2(owner);
  }
}

static void exercise(void){
  static const char *const WRONG[] = {
      "SELECT kimberlite_setup(?1, 1, 1, 1)", "SELECT kimberlite_enter(?1, 0, 0)", "SELECT kimberlite_enter(?1, 5, 0)",
      "SELECT kimberlite_enter(?1, NULL, NULL)", "SELECT kimberlite_enter(zeroblob(16), 1, 0)",
      "SELECT kimberlite_leave(x'00')", "SELECT kimberlite_leave(NULL)", "SELECT kimberlite_leave(zeroblob(0))",
      "SELECT kimberlite_leave('0123456789abcdef')", "SELECT kimberlite_denied(7)",
      "SELECT kimberlite_config(?1, 'nothing', 1)", "SELECT kimberlite_config(?1, NULL, 1)",
      "SELECT kimberlite_config(?1, zeroblob(0), 1)", "SELECT kimberlite_col(?1, 0)", "SELECT kimberlite_col(NULL, 0)",
      "SELECT kimberlite_col(zeroblob(0), 0)", "SELECT kimberlite_col(x'80', 0)", "SELECT kimberlite_col('x', 0)",
  };
  sqlite3 *db = open_guarded(":memory:");
  for(size_t i=0; i<sizeof WRONG/sizeof WRONG[0]; i++) expect_error(db, WRONG[i]);
  execute(db, "SELECT kimberlite_row(); SELECT kimberlite_row(1, -1.5, 'a', x'00', NULL, CAST(x'ff' AS TEXT), zeroblob(9))");
  expect_error(db, "SELECT kimberlite_row(zeroblob(999999), zeroblob(999999))");
  for(int mode=1; mode<=2; mode++){
    enter(db, mode, 20);
    expect_error(db, "SELECT kimberlite_leave(zeroblob(16))");
    if( call(db, ENDLESS, 0)!=SQLITE_INTERRUPT ) fail("not interrupted");
    if( (leave(db) & 2)==0 ) fail("expiry not reported");
    if( leave(db)!=0 ) fail("leaving twice reports twice");
    execute(db, "SELECT kimberlite_row(1)");
  }
  /* An interrupt of the past must not reach a trusted statement. */
  for(int i=0; i<500; i++){
    enter(db, 2, 1+i%3);
    call(db, "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c LIMIT 3000) SELECT count(*) FROM c", 0);
    leave(db);
    execute(db, "SELECT count(*) FROM sqlite_master");
  }
  enter(db, 1, 5);
  sqlite3_close(db); /* armed */
  exercise_shared();
  db = open_guarded(":memory:");
  enter(db, 1, 5);
  sqlite3_stmt *open = 0;
  sqlite3_prepare_v2(db, "SELECT 1", -1, &open, 0);
  sqlite3_close_v2(db); /* armed, and a zombie until the statement ends */
  sqlite3_sleep(15);
  sqlite3_finalize(open);
}

static double threads_until;

static void *one_thread(void *endless){
  while( seconds_now()<threads_until ){
    sqlite3 *db = open_guarded(":memory:");
    for(int i=0; i<20; i++){
      enter(db, 2, endless ? 3 : 10000);
      int rc = call(db, endless ? ENDLESS : "SELECT 1", 0);
      int expired = leave(db) & 2;
      int stopped = rc==SQLITE_INTERRUPT || rc==SQLITE_AUTH;
      if( endless ? !stopped || !expired : rc!=SQLITE_ROW || expired ) fail("thread: %d %d", rc, expired);
    }
    if( endless ) enter(db, 2, 1);
    sqlite3_close(db);
  }
  return 0;
}

static void threads(double seconds){
  pthread_t all[6];
  threads_until = seconds_now()+seconds;
  for(int i=0; i<6; i++) pthread_create(&all[i], 0, one_thread, i%2 ? &threads_until : 0);
  for(int i=0; i<6; i++) pthread_join(all[i], 0);
}

int main(int argc, char **argv){
  sqlite3_initialize(); /* here, because SQLite looks whether it was done without a lock */
  if( argc==2 && strcmp(argv[1], "exercise")==0 ) exercise();
  else if( argc==3 && strcmp(argv[1], "threads")==0 ) threads(atof(argv[2]));
  else if( argc==4 && strcmp(argv[1], "fuzz")==0 ) fuzz((uint64_t)strtoull(argv[2], 0, 10), atof(argv[3]));
  else{ fprintf(stderr, "usage: driver exercise | threads SECONDS | fuzz SEED SECONDS\n"); return 2; }
  printf("  %s ok\n", argv[1]);
  return 0;
}
