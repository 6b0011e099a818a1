/*
 * Two seeded mutational fuzzers.
 *
 * Images: a row image with bytes changed, cut or added is refused, or unpacks to values that pack to it again. It is
 * bound from a block of memory of exactly its size, so that the address sanitizer sees a read beside it. The string
 * functions run on random bytes beside it.
 *
 * SQL: statements made of pieces of a corpus and a dictionary of what a tenant must not reach run in tenant mode.
 * Afterwards our table has its row, no database is attached, no file appeared, the connection is as defensive as
 * before, the capture triggers of every table stand, no call of ours was imitated, and no result held our row.
 */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state, started_with;

/* splitmix64 */
static uint64_t next(void){
  uint64_t z = (state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z>>30))*0xbf58476d1ce4e5b9u;
  z = (z ^ (z>>27))*0x94d049bb133111ebu;
  return z ^ (z>>31);
}
static unsigned below(unsigned n){ return (unsigned)(next()%n); }

/* ---- Images ---- */

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql){
  sqlite3_stmt *statement = 0;
  if( sqlite3_prepare_v2(db, sql, -1, &statement, 0)!=SQLITE_OK ) fail("%s: %s", sql, sqlite3_errmsg(db));
  return statement;
}

static void bind_random(sqlite3_stmt *pack, int at){
  static const sqlite3_int64 EDGES[] = {0, 23, 24, 255, 256, 65535, 65536, 4294967295, 4294967296, INT64_MAX, INT64_MIN, -1};
  unsigned char bytes[80];
  int n = (int)below(sizeof bytes);
  for(int i=0; i<n; i++) bytes[i] = (unsigned char)(below(3) ? 'a'+below(26) : below(256));
  switch( below(6) ){
    case 0: sqlite3_bind_null(pack, at); break;
    case 1: sqlite3_bind_int64(pack, at, EDGES[below(sizeof EDGES/sizeof EDGES[0])]); break;
    case 2: sqlite3_bind_int64(pack, at, (sqlite3_int64)(next()>>below(64))); break;
    case 3: sqlite3_bind_double(pack, at, (double)(sqlite3_int64)next()/1e9); break;
    case 4: sqlite3_bind_text(pack, at, (char*)bytes, n, SQLITE_TRANSIENT); break;
    default: sqlite3_bind_blob(pack, at, bytes, n, SQLITE_TRANSIENT); break;
  }
}

/* A random image in a block of exactly its size, then changed. */
static unsigned char *mutated_image(sqlite3_stmt *pack, size_t *size){
  for(int i=1; i<=5; i++) bind_random(pack, i);
  if( sqlite3_step(pack)!=SQLITE_ROW ) fail("pack");
  size_t n = (size_t)sqlite3_column_bytes(pack, 0);
  size_t changed = below(4) ? n : below(2) ? below((unsigned)n+1) : n+below(9);
  unsigned char *image = malloc(changed ? changed : 1);
  for(size_t i=0; i<changed; i++) image[i] = (unsigned char)next();
  memcpy(image, sqlite3_column_blob(pack, 0), changed<n ? changed : n);
  sqlite3_reset(pack);
  for(unsigned i=below(4); i>0 && changed>0; i--) image[below((unsigned)(below(2) ? changed : changed<12 ? changed : 12))] = (unsigned char)next();
  *size = changed;
  return image;
}

static void fuzz_images(double seconds){
  sqlite3 *db = open_guarded(":memory:");
  sqlite3_stmt *pack = prepare(db, "SELECT kimberlite_row(?1, ?2, ?3, ?4, ?5)");
  sqlite3_stmt *column = prepare(db, "SELECT kimberlite_col(?1, ?2)");
  sqlite3_stmt *strings = prepare(db, "SELECT instr(?1, ?2), replace(?1, ?2, ?3), trim(?1, ?2), ltrim(?2, ?3), rtrim(?3, ?1),"
      " unhex(?1, ?2), instr(?1, substr(?1, 3, 2)), replace(?1, substr(?1, 2, 1), ?3), trim(?1, substr(?1, 1, 4)), unhex(hex(?1), ?2),"
      " ?1 LIKE ?2, ?1 GLOB ?2, ?2 LIKE '%'||?3||'_', ?2 GLOB '*'||?3||'?[a-'||?1, ?1 LIKE ?2 ESCAPE 'a'");
  unsigned long rounds = 0, intact = 0;
  for(double until=seconds_now()+seconds; rounds%256 || seconds_now()<until; rounds++){
    size_t size;
    unsigned char *image = mutated_image(pack, &size);
    int good = 0;
    for(int i=1; i<=3; i++) bind_random(strings, i);
    if( sqlite3_step(strings)!=SQLITE_ROW ) fail("seed %llu: %s", (unsigned long long)started_with, sqlite3_errmsg(db));
    sqlite3_reset(strings);
    for(int i=-1; i<7; i++){
      sqlite3_bind_blob(column, 1, image, (int)size, SQLITE_STATIC);
      sqlite3_bind_int(column, 2, i);
      int rc = sqlite3_step(column);
      if( rc!=SQLITE_ROW && rc!=SQLITE_ERROR ) fail("seed %llu image round %lu: %d", (unsigned long long)started_with, rounds, rc);
      if( rc==SQLITE_ROW && i>=0 && i<5 ){ sqlite3_bind_value(pack, i+1, sqlite3_column_value(column, 0)); good++; }
      if( rc==SQLITE_ROW && (i<0 || i>=(image[0] & 0x1f)) ) fail("seed %llu: column outside", (unsigned long long)started_with);
      sqlite3_reset(column);
    }
    if( good==5 && image[0]==0x85 ){
      if( sqlite3_step(pack)!=SQLITE_ROW || (size_t)sqlite3_column_bytes(pack, 0)!=size
          || memcmp(sqlite3_column_blob(pack, 0), image, size)!=0 ){
        fail("seed %llu image round %lu: unpacks to other values", (unsigned long long)started_with, rounds);
      }
      intact++;
    }
    sqlite3_reset(pack);
    sqlite3_clear_bindings(column);
    free(image);
  }
  sqlite3_finalize(pack);
  sqlite3_finalize(strings);
  sqlite3_finalize(column);
  sqlite3_close(db);
  printf("  %lu images, %lu of them still images\n", rounds, intact);
}

/* ---- SQL ---- */

#define MARKER "S3CR3T-0F-0URS"

static const char *const CORPUS[] = {
    "SELECT * FROM patients WHERE name LIKE 'a%' ORDER BY ward LIMIT 3",
    "INSERT INTO patients ( name , ward ) VALUES ( 'Ada' , 7 ) , ( 'Bob' , 8 )",
    "INSERT OR REPLACE INTO patients ( id , name ) SELECT id , name FROM patients RETURNING id",
    "INSERT INTO patients ( id ) VALUES ( 1 ) ON CONFLICT ( id ) DO UPDATE SET ward = excluded . ward",
    "UPDATE patients SET ward = ward + 1 FROM visits WHERE visits . patient = patients . id",
    "DELETE FROM patients WHERE id IN ( SELECT patient FROM visits )",
    "CREATE TABLE t ( a INTEGER PRIMARY KEY , b TEXT UNIQUE , c REFERENCES patients DEFERRABLE INITIALLY DEFERRED )",
    "CREATE TABLE t AS SELECT * FROM patients", "DROP TABLE t", "DROP TABLE IF EXISTS visits",
    "CREATE INDEX i ON patients ( ward )", "DROP INDEX i", "REINDEX", "ANALYZE", "ANALYZE patients",
    "CREATE VIEW v AS SELECT name FROM patients", "DROP VIEW v", "SELECT * FROM v",
    "CREATE TRIGGER g AFTER INSERT ON visits BEGIN UPDATE patients SET ward = NEW . patient ; END", "DROP TRIGGER g",
    "CREATE TRIGGER h INSTEAD OF DELETE ON v BEGIN DELETE FROM visits ; END", "DROP TRIGGER h",
    "ALTER TABLE patients RENAME TO people", "ALTER TABLE people RENAME TO patients", "ALTER TABLE t ADD COLUMN z",
    "ALTER TABLE t RENAME COLUMN b TO bb", "ALTER TABLE t DROP COLUMN z",
    "CREATE VIRTUAL TABLE f USING fts5 ( body )", "INSERT INTO f ( body ) VALUES ( 'one two' )", "DROP TABLE f",
    "SELECT highlight ( notes , 0 , '<' , '>' ) FROM notes ( 'one' )", "INSERT INTO notes ( notes ) VALUES ( 'rebuild' )",
    "WITH RECURSIVE c ( n ) AS ( SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 9 ) SELECT n FROM c",
    "WITH w AS ( SELECT * FROM sqlite_master ) SELECT name , sql FROM w", "SELECT * FROM pragma_table_info ( 'patients' )",
    "PRAGMA table_info ( patients )", "PRAGMA user_version = 4", "PRAGMA integrity_check", "PRAGMA journal_mode = DELETE",
    "SELECT json_extract ( '{\"a\":[1,2]}' , '$.a' ) , value FROM json_each ( '[1,2]' )", "VACUUM", "VACUUM INTO 'out.db'",
    "ATTACH 'other.db' AS other", "ATTACH ':memory:' AS m", "DETACH other", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s",
    "RELEASE s", "EXPLAIN DROP TABLE patients", "EXPLAIN QUERY PLAN SELECT * FROM patients",
    "SELECT * FROM _kimberlite_meta", "DELETE FROM _kimberlite_meta", "DROP TABLE _kimberlite_meta",
    "UPDATE _kimberlite_meta SET secret = 'x'", "INSERT INTO _kimberlite_meta VALUES ( 2 , 'x' )",
    "ALTER TABLE _kimberlite_meta RENAME TO mine", "CREATE INDEX j ON _kimberlite_meta ( secret )",
    "CREATE VIEW mine AS SELECT * FROM _kimberlite_meta", "DROP TRIGGER _kimberlite_capture_patients_i",
    "WITH _kimberlite_capture_x AS ( SELECT kimberlite_touch ( 666 , 1 , NULL ) AS z ) SELECT z FROM _kimberlite_capture_x",
    "CREATE TEMP TABLE s ( a )", "CREATE TEMP VIEW s AS SELECT * FROM _kimberlite_meta", "SELECT * FROM sqlite_temp_master",
    "CREATE VIRTUAL TABLE d USING dbstat", "SELECT * FROM dbstat", "CREATE TRIGGER k AFTER INSERT ON _kimberlite_meta BEGIN SELECT 1 ; END",
    "CREATE VIRTUAL TABLE e USING fts5 ( secret , content = '_kimberlite_meta' )", "SELECT * FROM e",
    "INSERT INTO e ( e ) VALUES ( 'rebuild' )", "DELETE FROM sqlite_master", "UPDATE sqlite_sequence SET seq = 4",
    "DELETE FROM sqlite_sequence", "DELETE FROM notes_data", "UPDATE sqlite_temp_schema SET sql = NULL",
};
enum { CORPUS_SIZE = sizeof CORPUS/sizeof CORPUS[0], MAX_TOKENS = 64, TOKEN = 120 };

static const char *const DICTIONARY[] = {
    "_kimberlite_meta", "main . _kimberlite_meta", "temp . sqlite_master", "sqlite_temp_schema", "sqlite_master", "secret", "rowid",
    "kimberlite_touch ( 666 , 1 , 2 )", "kimberlite_row ( 1 )", "kimberlite_leave ( zeroblob ( 16 ) )", "load_extension ( 'x' )",
    "kimberlite_col ( x'8101' , 0 )", "sqlite3mc_config ( 'cipher' )", "writefile ( 'f' , 'x' )", "fts5", "dbstat", "ATTACH", "PRAGMA",
    "writable_schema = 1", "key = 'x'", "temp_store_directory = '.'", "TEMP", "temp .", "main .", "_kimberlite_capture_x", "NULL", "1e308",
    "zeroblob ( 99999999 )", "randomblob ( 9 )", "( SELECT secret FROM _kimberlite_meta )", "UNION ALL SELECT secret , 1 FROM _kimberlite_meta",
    ";", "(", ")", ",", "*", "'", "\"", "--", "/*", "RETURNING *", "RAISE ( ROLLBACK , 'x' )", "EXPLAIN", "IF NOT EXISTS", "(VALUES(1),(2))",
    "CROSS JOIN _kimberlite_meta", "pragma_table_xinfo ( '_kimberlite_meta' )", "pragma_database_list", "?1", "ON CONFLICT DO NOTHING",
};
enum { DICTIONARY_SIZE = sizeof DICTIONARY/sizeof DICTIONARY[0] };

static char tokens[MAX_TOKENS][TOKEN];

/* Appends the tokens `from` to `to` of a statement to `count` others. */
static int take(const char *sql, int count, int from, int to){
  int at = 0;
  for(const char *p=sql; *p && count<MAX_TOKENS; at++){
    size_t n = strcspn(p, " ");
    if( at>=from && at<to ){ snprintf(tokens[count++], TOKEN, "%.*s", (int)(n<TOKEN ? n : TOKEN-1), p); }
    p += n;
    while( *p==' ' ) p++;
  }
  return count;
}

static void make_sql(char *out, size_t size){
  int count = take(CORPUS[below(CORPUS_SIZE)], 0, 0, MAX_TOKENS);
  if( below(4)==0 ) count = take(CORPUS[below(CORPUS_SIZE)], (int)below((unsigned)count+1), (int)below(6), MAX_TOKENS);
  for(unsigned changes = below(3) ? below(4) : 0; changes>0; changes--){
    char *token = tokens[below((unsigned)(count ? count : 1))];
    const char *other = CORPUS[below(CORPUS_SIZE)];
    switch( below(4) ){
      case 0: snprintf(token, TOKEN, "%s", DICTIONARY[below(DICTIONARY_SIZE)]); break;
      case 1: token[0] = 0; break;
      case 2: { int k = (int)below(12); take(other, (int)(token-tokens[0])/TOKEN, k, k+1); break; }
      default: if( count<MAX_TOKENS ) snprintf(tokens[count++], TOKEN, "%s", DICTIONARY[below(DICTIONARY_SIZE)]); break;
    }
  }
  size_t used = 0;
  out[0] = 0;
  for(int i=0; i<count && used+TOKEN+2<size; i++) used += (size_t)snprintf(out+used, size-used, "%s ", tokens[i]);
}

static const char *running = "";
static unsigned long round_number;
#define BROKEN(what) fail("%s\n  seed %llu, statement %lu: %s", what, (unsigned long long)started_with, round_number, running)

static void touch(sqlite3_context *context, int argc, sqlite3_value **argv){
  if( argc!=3 || sqlite3_value_int(argv[0])==666 ) BROKEN("a tenant called the capture function");
  sqlite3_result_null(context);
}

static void look_for_marker(sqlite3_stmt *statement){
  for(int i=0; i<sqlite3_column_count(statement); i++){
    const char *text = (const char*)sqlite3_column_blob(statement, i);
    int n = sqlite3_column_bytes(statement, i);
    for(int k=0; text && k+(int)sizeof MARKER-1<=n; k++){
      if( memcmp(text+k, MARKER, sizeof MARKER-1)==0 ) BROKEN("a result holds our row");
    }
  }
}

static void run_all(sqlite3 *db, const char *sql){
  for(int statements=0; sql && *sql && statements<4; statements++){
    sqlite3_stmt *statement = 0;
    const char *rest = 0;
    if( sqlite3_prepare_v2(db, sql, -1, &statement, &rest)!=SQLITE_OK ) return;
    for(int rows=0; statement && rows<200 && sqlite3_step(statement)==SQLITE_ROW; rows++) look_for_marker(statement);
    sqlite3_finalize(statement);
    sql = rest;
  }
}

static sqlite3 *fresh_database(void){
  remove("fuzz.db");
  sqlite3 *db = open_guarded("fuzz.db");
  sqlite3_create_function_v2(db, "kimberlite_touch", -1, SQLITE_UTF8, 0, touch, 0, 0, 0);
  execute(db, "PRAGMA recursive_triggers = ON; PRAGMA temp_store = MEMORY; PRAGMA synchronous = OFF;"
      "CREATE TABLE _kimberlite_meta (id INTEGER PRIMARY KEY, secret TEXT UNIQUE) STRICT;"
      "INSERT INTO _kimberlite_meta VALUES (1, '" MARKER "');"
      "CREATE TABLE patients (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, ward);"
      "CREATE TABLE visits (id INTEGER PRIMARY KEY, patient REFERENCES patients ON DELETE CASCADE);"
      "INSERT INTO patients VALUES (1, 'Ada', 1), (2, 'Bob', 2); INSERT INTO visits VALUES (1, 1), (2, 2);"
      "CREATE VIRTUAL TABLE notes USING fts5(body); INSERT INTO notes VALUES ('one two');"
      "CREATE TEMP TRIGGER _kimberlite_capture_patients_i AFTER INSERT ON main.patients BEGIN SELECT kimberlite_touch(1, NEW.id, NULL); END;"
      "CREATE TEMP TRIGGER _kimberlite_capture_patients_d BEFORE DELETE ON main.patients BEGIN SELECT kimberlite_touch(1, OLD.id, kimberlite_row(OLD.id, OLD.name)); END;"
      "CREATE TEMP TRIGGER _kimberlite_capture_visits_u BEFORE UPDATE ON main.visits BEGIN SELECT kimberlite_touch(2, OLD.id, kimberlite_row(OLD.id, OLD.patient)); END;");
  return db;
}

static int number(sqlite3 *db, const char *sql){
  int result = -1;
  if( call(db, sql, &result)!=SQLITE_ROW ) fail("%s: %s", sql, sqlite3_errmsg(db));
  return result;
}

static void check_promises(sqlite3 *db){
  static const int ON[] = {SQLITE_DBCONFIG_DEFENSIVE, SQLITE_DBCONFIG_ENABLE_FKEY, SQLITE_DBCONFIG_ENABLE_TRIGGER};
  static const int OFF[] = {SQLITE_DBCONFIG_TRUSTED_SCHEMA, SQLITE_DBCONFIG_WRITABLE_SCHEMA, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION};
  int flag = -1;
  for(int i=0; i<3; i++){ sqlite3_db_config(db, ON[i], -1, &flag); if( flag!=1 ) BROKEN("a switch is off"); }
  for(int i=0; i<3; i++){ sqlite3_db_config(db, OFF[i], -1, &flag); if( flag!=0 ) BROKEN("a switch is on"); }
  if( sqlite3_db_name(db, 2)!=0 ) BROKEN("a database is attached");
  if( !sqlite3_get_autocommit(db) ) BROKEN("a transaction is open");
  if( number(db, "SELECT count(*)*10+sum(id=1 AND secret='" MARKER "') FROM main._kimberlite_meta")!=11 ) BROKEN("our table changed");
  if( number(db, "SELECT count(*) FROM main.sqlite_master WHERE tbl_name='_kimberlite_meta'")!=2 ) BROKEN("our schema changed");
  if( number(db, "SELECT (SELECT count(*) FROM temp.sqlite_master)"
          " - (SELECT count(*) FROM temp.sqlite_master WHERE name LIKE '\\_kimberlite\\_capture\\_%' ESCAPE '\\')")!=0 ){
    BROKEN("a temporary object of a tenant");
  }
  if( number(db, "SELECT count(*) FROM main.sqlite_master WHERE type='table' AND name IN ('patients', 'people')")>0
      && number(db, "SELECT count(*) FROM main.sqlite_master WHERE sql LIKE '%AUTOINCREMENT, name TEXT, ward%'")==1
      && number(db, "SELECT count(*) FROM temp.sqlite_master WHERE name LIKE '%capture\\_patients%' ESCAPE '\\'")!=2 ){
    BROKEN("a capture trigger is gone");
  }
}

static void check_files(void){
  DIR *directory = opendir(".");
  for(struct dirent *entry; directory && (entry=readdir(directory));){
    if( entry->d_name[0]!='.' && strncmp(entry->d_name, "fuzz.db", 7)!=0 ) BROKEN(entry->d_name);
  }
  if( directory ) closedir(directory);
}

static void fuzz_sql(double seconds){
  char sql[MAX_TOKENS*TOKEN];
  sqlite3 *db = fresh_database();
  unsigned long permitted = 0;
  running = sql;
  for(double until=seconds_now()+seconds; seconds_now()<until; round_number++){
    if( round_number%300==299 ){ check_files(); sqlite3_close(db); db = fresh_database(); }
    make_sql(sql, sizeof sql);
    enter(db, below(5) ? 1 : 2, 50);
    run_all(db, sql);
    permitted += leave(db)!=0;
    check_promises(db);
  }
  check_files();
  sqlite3_close(db);
  remove("fuzz.db");
  printf("  %lu statements, %lu of them did something\n", round_number, permitted);
}

void fuzz(uint64_t seed, double seconds){
  state = started_with = seed;
  fuzz_images(seconds/3);
  fuzz_sql(seconds*2/3);
}
