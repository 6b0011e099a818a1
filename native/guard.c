/*
 * The guard's SQL functions and entry point.
 *
 * A connection is trusted until kimberlite_enter and again after kimberlite_leave; in between authorizer.c judges what
 * is compiled and watchdog.c bounds what runs. The functions demand a secret that only the embedding process knows.
 *
 * Invariants: secrets are compared in constant time; setup happens once; nothing is configured except while trusted;
 * the Guard lives as long as any function of it is registered.
 * Faults survived: a wrong secret, a second load or setup, memory that runs out while loading.
 */
#include "guard.h"
SQLITE_EXTENSION_INIT1

#include <string.h>

#if defined(__GNUC__)
#define EXPORTED __attribute__((visibility("default")))
#else
#define EXPORTED
#endif

static int is(const char *what, const char *name){ return what && sqlite3_stricmp(what, name)==0; }

static void refuse(sqlite3_context *context, const char *message, int code){
  sqlite3_result_error(context, message, -1);
  sqlite3_result_error_code(context, code);
}

/* Constant time in the secret. */
Guard *kimberlite_authenticate(sqlite3_context *context, sqlite3_value *given){
  Guard *g = sqlite3_user_data(context);
  unsigned different = !g->ready || sqlite3_value_type(given)!=SQLITE_BLOB || sqlite3_value_bytes(given)!=SECRET_SIZE;
  const volatile unsigned char *bytes = different ? g->secret : sqlite3_value_blob(given);
  for(int i=0; i<SECRET_SIZE; i++) different |= (unsigned)(bytes[i] ^ g->secret[i]);
  if( different==0 ) return g;
  refuse(context, "kimberlite: not authorized", SQLITE_AUTH);
  return 0;
}

static const int LIMITS[][2] = {
    {SQLITE_LIMIT_COLUMN, 1000}, {SQLITE_LIMIT_EXPR_DEPTH, 500}, {SQLITE_LIMIT_COMPOUND_SELECT, 500},
    {SQLITE_LIMIT_ATTACHED, 0}, {SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 50000}, {SQLITE_LIMIT_VARIABLE_NUMBER, 32766},
    {SQLITE_LIMIT_TRIGGER_DEPTH, 100}, {SQLITE_LIMIT_WORKER_THREADS, 0}, {SQLITE_LIMIT_VDBE_OP, 1400000},
};

/* A rowid that nobody has: in the place of the connection's last one, it tells whether a statement inserted a row. */
static const sqlite3_int64 NO_ROWID = -9000000000000000001;

static const int SWITCHES[][2] = {
    {SQLITE_DBCONFIG_DEFENSIVE, 1}, {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0}, {SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0},
    {SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, 0}, {SQLITE_DBCONFIG_DQS_DDL, 0}, {SQLITE_DBCONFIG_DQS_DML, 0},
    {SQLITE_DBCONFIG_WRITABLE_SCHEMA, 0}, {SQLITE_DBCONFIG_LEGACY_ALTER_TABLE, 0}, {SQLITE_DBCONFIG_ENABLE_FKEY, 1},
    {SQLITE_DBCONFIG_ENABLE_TRIGGER, 1}, {SQLITE_DBCONFIG_ENABLE_VIEW, 1}, {SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, 0},
    {SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, 0},
};

static void setup_function(sqlite3_context *context, int argc, sqlite3_value **argv){
  Guard *g = sqlite3_user_data(context);
  int rc = argc==4 && sqlite3_value_bytes(argv[0])==SECRET_SIZE && !g->ready ? SQLITE_OK : SQLITE_MISUSE;
  if( rc==SQLITE_OK ) memcpy(g->secret, sqlite3_value_blob(argv[0]), SECRET_SIZE);
  for(size_t i=0; rc==SQLITE_OK && i<sizeof SWITCHES/sizeof SWITCHES[0]; i++){
    rc = sqlite3_db_config(g->db, SWITCHES[i][0], SWITCHES[i][1], (int*)0);
  }
  if( rc==SQLITE_OK ) rc = sqlite3_set_authorizer(g->db, kimberlite_authorize, g);
  if( rc!=SQLITE_OK ){ refuse(context, "kimberlite: setup refused", rc); return; }
  for(size_t i=0; i<sizeof LIMITS/sizeof LIMITS[0]; i++) sqlite3_limit(g->db, LIMITS[i][0], LIMITS[i][1]);
  sqlite3_limit(g->db, SQLITE_LIMIT_LENGTH, sqlite3_value_int(argv[1]));
  sqlite3_limit(g->db, SQLITE_LIMIT_SQL_LENGTH, sqlite3_value_int(argv[2]));
  kimberlite_limit_memory(sqlite3_value_int64(argv[3]));
  g->ready = 1;
}

static void enter_function(sqlite3_context *context, int argc, sqlite3_value **argv){
  Guard *g = kimberlite_authenticate(context, argv[0]);
  int mode = argc==3 ? sqlite3_value_int(argv[1]) : TRUSTED;
  if( g==0 ) return;
  int again = g->mode==READ && mode==READ; /* a reader stays entered from one read to the next */
  if( again ) kimberlite_disarm(g);
  if( (g->mode!=TRUSTED && !again) || mode<WRITE || mode>INSERT || !kimberlite_arm(g, sqlite3_value_int(argv[2])) ){
    refuse(context, "kimberlite: cannot enter", SQLITE_MISUSE);
    return;
  }
  g->seen = 0;
  g->filtered = 0;
  g->denied[0] = 0;
  g->asked = 0;
  g->newest = sqlite3_next_stmt(g->db, 0);
  g->marked = mode==INSERT;
  g->mode = mode==INSERT ? WRITE : mode;
  if( !g->marked ) return;
  g->rowid = sqlite3_last_insert_rowid(g->db);
  sqlite3_set_last_insert_rowid(g->db, NO_ROWID);
}

/* Bytes of the statements that were compiled since enter and are there still. */
static sqlite3_int64 compiled_bytes(const Guard *g){
  sqlite3_int64 bytes = 0;
  for(sqlite3_stmt *s=sqlite3_next_stmt(g->db, 0); s && s!=g->newest; s=sqlite3_next_stmt(g->db, s)){
    bytes += sqlite3_stmt_status(s, SQLITE_STMTSTATUS_MEMUSED, 0);
  }
  return bytes;
}

static void leave_function(sqlite3_context *context, int argc, sqlite3_value **argv){
  Guard *g = kimberlite_authenticate(context, argv[0]);
  int unresolved = 0, highest = 0;
  if( g==0 || argc!=1 ) return;
  g->mode = TRUSTED;
  int expired = kimberlite_disarm(g);
  if( g->marked && sqlite3_last_insert_rowid(g->db)==NO_ROWID ) sqlite3_set_last_insert_rowid(g->db, g->rowid);
  g->marked = 0;
  sqlite3_db_status(g->db, SQLITE_DBSTATUS_DEFERRED_FKS, &unresolved, &highest, 0);
  int bits = g->seen | (unresolved ? DEFERRED_FKS : 0) | (expired ? EXPIRED : 0) | (expired==STARVED ? OUT_OF_MEMORY : 0);
  sqlite3_result_int64(context, bits | (g->asked ? compiled_bytes(g)<<SIZE_SHIFT : 0));
}

static void denied_function(sqlite3_context *context, int argc, sqlite3_value **argv){
  Guard *g = kimberlite_authenticate(context, argv[0]);
  if( g && argc==1 && g->denied[0] ) sqlite3_result_text(context, g->denied, -1, SQLITE_TRANSIENT);
}

/* `on` is 0 or 1, except for hide_schema: there it is the number of the expression that may read. */
static void config_function(sqlite3_context *context, int argc, sqlite3_value **argv){
  Guard *g = kimberlite_authenticate(context, argv[0]);
  if( g==0 || argc!=3 ) return;
  const char *what = (const char*)sqlite3_value_text(argv[1]);
  int on = sqlite3_value_int(argv[2]);
  int op = is(what, "triggers") ? SQLITE_DBCONFIG_ENABLE_TRIGGER
         : is(what, "foreign_keys") ? SQLITE_DBCONFIG_ENABLE_FKEY
         : is(what, "defensive") ? SQLITE_DBCONFIG_DEFENSIVE
         : is(what, "writable_schema") ? SQLITE_DBCONFIG_WRITABLE_SCHEMA : 0;
  int rc = SQLITE_MISUSE;
  if( g->mode==TRUSTED && op!=0 ) rc = sqlite3_db_config(g->db, op, on!=0, (int*)0);
  if( g->mode==TRUSTED && is(what, "hide_schema") ){ g->schema_view = on; rc = SQLITE_OK; }
  if( rc!=SQLITE_OK ) refuse(context, "kimberlite: cannot configure", SQLITE_MISUSE);
}

/* While trusted: overwrites the process's freed memory. */
static void scrub_function(sqlite3_context *context, int argc, sqlite3_value **argv){
  Guard *g = kimberlite_authenticate(context, argv[0]);
  if( g==0 || argc!=1 ) return;
  if( g->mode!=TRUSTED ) return refuse(context, "kimberlite: cannot scrub", SQLITE_MISUSE);
  sqlite3_result_int(context, kimberlite_scrub_memory());
}

/* Every function registered holds a reference; SQLite calls this as it drops each. */
static void release(void *p){
  Guard *g = p;
  if( --g->references>0 ) return;
  kimberlite_disarm(g);
  kimberlite_withdraw(g);
  memset(g, 0, sizeof *g);
  sqlite3_free(g);
}

static const struct {
  const char *name;
  int argc;
  void (*call)(sqlite3_context*, int, sqlite3_value**);
} CALLS[] = {
    {"kimberlite_setup", 4, setup_function}, {"kimberlite_enter", 3, enter_function},
    {"kimberlite_leave", 1, leave_function}, {"kimberlite_denied", 1, denied_function},
    {"kimberlite_config", 3, config_function}, {"kimberlite_scrub", 1, scrub_function},
    {"kimberlite_offer", 5, kimberlite_offer}, {"kimberlite_collation", 3, kimberlite_collation},
};

EXPORTED int sqlite3_guard_init(sqlite3 *db, char **error, const sqlite3_api_routines *api){
  static char loaded;
  SQLITE_EXTENSION_INIT2(api);
  if( sqlite3_get_clientdata(db, "kimberlite_guard") ) return SQLITE_OK_LOAD_PERMANENTLY;
  Guard *g = sqlite3_malloc(sizeof *g);
  if( g==0 ) return SQLITE_NOMEM;
  memset(g, 0, sizeof *g);
  g->db = db;
  g->references = 1;
  int rc = kimberlite_register_rowcodec(db);
  if( rc==SQLITE_OK ) rc = kimberlite_register_bounded(db);
  if( rc==SQLITE_OK ) rc = kimberlite_register_like(db);
  if( rc==SQLITE_OK ) rc = kimberlite_register_shared(g);
  for(size_t i=0; rc==SQLITE_OK && i<sizeof CALLS/sizeof CALLS[0]; i++){
    g->references++;
    rc = sqlite3_create_function_v2(
        db, CALLS[i].name, CALLS[i].argc, SQLITE_UTF8 | SQLITE_DIRECTONLY, g, CALLS[i].call, 0, 0, release);
  }
  if( rc==SQLITE_OK ) rc = sqlite3_set_clientdata(db, "kimberlite_guard", &loaded, 0);
  release(g);
  if( rc!=SQLITE_OK ) *error = sqlite3_mprintf("kimberlite: out of memory");
  return rc==SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : rc; /* never unloaded: the watchdog may be in its code */
}
