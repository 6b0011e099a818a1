/*
 * The authorizer: SQLite asks it about everything that is compiled on a guarded connection.
 *
 * Invariants: what is not named here is refused; in a trusted connection everything is permitted; names with the
 * reserved prefix are neither seen nor touched; a denial is remembered by names, never values.
 * Faults survived: names chosen to look like ours (common table expressions, tenants' triggers), statements that
 * SQLite compiles for itself within a DDL statement.
 */
#include "guard.h"
SQLITE_EXTENSION_INIT3

#include "allowed.h"

#include <stdlib.h>
#include <string.h>

/* An error code that nothing else sets; see `in_ddl`. */
enum { DDL_MARK = SQLITE_NOTICE | (0x4b<<8) };

/* Prefix of the common table expression through which the schema table is read when it is hidden. */
#define SCHEMA_VIEW "_kimberlite_schema_"

static int same(const char *a, const char *b){ return a && sqlite3_stricmp(a, b)==0; }
static int starts(const char *a, const char *with){ return a && sqlite3_strnicmp(a, with, (int)strlen(with))==0; }

static int reserved(const char *name){
  return starts(name, "_kimberlite_") || starts(name, "sqlite_autoindex__kimberlite_");
}

static int listed(const char *const *list, size_t size, const char *name){
  for(size_t low=0, high=size; name && low<high;){
    size_t middle = (low+high)/2;
    int order = sqlite3_stricmp(name, list[middle]);
    if( order==0 ) return 1;
    if( order<0 ) high = middle; else low = middle+1;
  }
  return 0;
}
#define LISTED(list, name) listed(list, sizeof(list)/sizeof(list[0]), name)

static int pragma_known(const char *name){
  return LISTED(PRAGMAS_WITH_NAME, name) || LISTED(PRAGMAS_BARE, name) || LISTED(PRAGMAS_SETTABLE, name);
}

static int hidden(const char *name){
  if( starts(name, "pragma_") ) return !pragma_known(name+7);
  return reserved(name) || LISTED(HIDDEN_TABLES, name);
}

static int pragma_permitted(const Guard *g, const char *name, const char *argument){
  if( LISTED(PRAGMAS_SETTABLE, name) ) return argument==0 || g->mode==WRITE;
  if( LISTED(PRAGMAS_BARE, name) ) return argument==0;
  return LISTED(PRAGMAS_WITH_NAME, name) && !hidden(argument);
}

/*
 * Whether SQLite is inside the compilation of an ALTER or DROP that was permitted, where it asks again for
 * statements of its own. SQLite sets the error code of the connection at the end of every compilation and not
 * within one, so a code that `authorize` sets lives exactly as long.
 */
static int in_ddl(Guard *g){ return sqlite3_extended_errcode(g->db)==DDL_MARK; }

/* Statements under construction: they have no text yet. More than one means a trigger's program. Open blob
 * handles (FTS5 keeps some) have no text either, but they are busy. */
static int under_construction(Guard *g){
  int count = 0;
  for(sqlite3_stmt *s=sqlite3_next_stmt(g->db, 0); s; s=sqlite3_next_stmt(g->db, s)){
    if( sqlite3_sql(s)==0 && !sqlite3_stmt_busy(s) ) count++;
  }
  return count;
}

/* `within` alone could be the name of a tenant's common table expression. That cannot stand in a trigger's
 * program: SQLite refuses these functions in triggers that are not temporary (TRUSTED_SCHEMA is off). */
static int function_permitted(Guard *g, const char *name, const char *within){
  if( same(name, "kimberlite_touch") || same(name, "kimberlite_row") ){
    return starts(within, "_kimberlite_capture_") && under_construction(g)>1;
  }
  return LISTED(FUNCTIONS, name) || LISTED(ALTER_FUNCTIONS, name) || same(name, "kimberlite_leave");
}

static int is_schema_table(const char *table){
  return same(table, "sqlite_master") || same(table, "sqlite_schema");
}

static int is_temp_schema_table(const char *table){
  return same(table, "sqlite_temp_master") || same(table, "sqlite_temp_schema");
}

/* Rows of the schema tables: SQLite itself refuses them to all but its own statements (the connection is defensive).
 * The INSERT is permitted in any database so that the CREATE asked about next is what is denied. */
static int write_permitted(Guard *g, int action, const char *table, const char *db, const char *within){
  if( g->mode!=WRITE ) return 0;
  if( is_temp_schema_table(table) ) return action==SQLITE_INSERT || in_ddl(g);
  if( is_schema_table(table) ) return action==SQLITE_INSERT || same(db, "main");
  if( !same(db, "main") || hidden(table) ) return 0;
  if( !starts(table, "sqlite_stat") ) return 1;
  return action==SQLITE_DELETE && within==0 && (in_ddl(g) || under_construction(g)>0);
}

/* Whether `name` is that of the common table expression which may read the schema table. */
static int is_schema_reader(const Guard *g, const char *name){
  return g->schema_view!=0 && starts(name, SCHEMA_VIEW) && strtol(name+strlen(SCHEMA_VIEW), 0, 10)==g->schema_view;
}

/* Reading main's schema table, once it is hidden: by that expression, by SQLite within a DDL, and the rowid alone,
 * which CREATE TABLE asks for. A read of no column in particular of an unqualified sqlite_master concerns, in a
 * statement that has the expression, another expression of that name. */
static int schema_read_permitted(Guard *g, const char *column, const char *db, const char *within){
  if( g->schema_view==0 || in_ddl(g) || same(column, "rowid") ) return 1;
  if( is_schema_reader(g, within) ) return g->filtered = 1;
  return g->filtered && db==0 && column && *column==0;
}

static int read_permitted(Guard *g, const char *table, const char *column, const char *db, const char *within){
  if( is_temp_schema_table(table) ) return in_ddl(g);
  if( db==0 ? is_schema_reader(g, table) : !same(db, "main") ) return db==0;
  if( is_schema_table(table) ) return schema_read_permitted(g, column, db, within);
  return !hidden(table);
}

static int permitted(Guard *g, int action, const char *a, const char *b, const char *db, const char *within){
  switch( action ){
    case SQLITE_SELECT: case SQLITE_RECURSIVE: return 1;
    case SQLITE_READ: return read_permitted(g, a, b, db, within);
    case SQLITE_FUNCTION: return function_permitted(g, b, within);
    case SQLITE_INSERT: case SQLITE_UPDATE: case SQLITE_DELETE: return write_permitted(g, action, a, db, within);
    case SQLITE_PRAGMA: return (db==0 || same(db, "main")) && pragma_permitted(g, a, b);
    case SQLITE_ALTER_TABLE: return g->mode==WRITE && same(a, "main") && !hidden(b);
    case SQLITE_DROP_TEMP_TRIGGER: return g->mode==WRITE && reserved(a) && in_ddl(g);
    case SQLITE_CREATE_VTABLE: case SQLITE_DROP_VTABLE:
      return g->mode==WRITE && same(db, "main") && !hidden(a) && same(b, "fts5");
    case SQLITE_CREATE_INDEX: case SQLITE_CREATE_TABLE: case SQLITE_CREATE_TRIGGER: case SQLITE_CREATE_VIEW:
    case SQLITE_DROP_INDEX: case SQLITE_DROP_TABLE: case SQLITE_DROP_TRIGGER: case SQLITE_DROP_VIEW:
    case SQLITE_REINDEX: case SQLITE_ANALYZE:
      return g->mode==WRITE && same(db, "main") && !hidden(a) && !reserved(b);
    default: return 0;
  }
}

/* What a permitted action will do when it runs, in the bits of kimberlite_leave. */
static int effect(int action, const char *a, const char *b, const char *within){
  switch( action ){
    case SQLITE_INSERT: case SQLITE_UPDATE: case SQLITE_DELETE:
      if( starts(a, "sqlite_") ) return same(a, "sqlite_sequence") ? SEQUENCE : 0;
      return action==SQLITE_INSERT && within==0 ? ROWS | INSERTS : ROWS;
    case SQLITE_FUNCTION: return same(b, "last_insert_rowid") ? ASKS_ROWID : 0;
    case SQLITE_PRAGMA: return b && LISTED(PRAGMAS_SETTABLE, a) ? PRAGMA_SET : 0;
    case SQLITE_ALTER_TABLE: return SCHEMA | ALTER;
    case SQLITE_REINDEX: case SQLITE_ANALYZE: return STATISTICS;
    case SQLITE_CREATE_VTABLE: case SQLITE_DROP_VTABLE: return SCHEMA | VTABLE;
    case SQLITE_CREATE_TABLE: return starts(a, "sqlite_") ? 0 : SCHEMA;
    case SQLITE_CREATE_INDEX: case SQLITE_CREATE_TRIGGER: case SQLITE_CREATE_VIEW: case SQLITE_DROP_INDEX:
    case SQLITE_DROP_TABLE: case SQLITE_DROP_TRIGGER: case SQLITE_DROP_VIEW: return SCHEMA;
    default: return 0;
  }
}

static int opens_ddl(int action){
  return action==SQLITE_ALTER_TABLE || action==SQLITE_DROP_TABLE || action==SQLITE_DROP_VTABLE ||
      action==SQLITE_DROP_VIEW || action==SQLITE_DROP_INDEX || action==SQLITE_DROP_TRIGGER;
}

static const char *const ACTIONS[] = {
    "COPY", "CREATE_INDEX", "CREATE_TABLE", "CREATE_TEMP_INDEX", "CREATE_TEMP_TABLE", "CREATE_TEMP_TRIGGER",
    "CREATE_TEMP_VIEW", "CREATE_TRIGGER", "CREATE_VIEW", "DELETE", "DROP_INDEX", "DROP_TABLE",
    "DROP_TEMP_INDEX", "DROP_TEMP_TABLE", "DROP_TEMP_TRIGGER", "DROP_TEMP_VIEW", "DROP_TRIGGER", "DROP_VIEW",
    "INSERT", "PRAGMA", "READ", "SELECT", "TRANSACTION", "UPDATE", "ATTACH", "DETACH", "ALTER_TABLE",
    "REINDEX", "ANALYZE", "CREATE_VTABLE", "DROP_VTABLE", "FUNCTION", "SAVEPOINT", "RECURSIVE",
};

/* Keeps the first denial. The file of ATTACH and the argument of PRAGMA are values: they are left out. */
static void record(Guard *g, int action, const char *a, const char *b){
  const int known = action>=0 && action<(int)(sizeof ACTIONS/sizeof ACTIONS[0]);
  if( g->denied[0] ) return;
  if( action==SQLITE_ATTACH ) a = 0;
  if( action==SQLITE_PRAGMA ) b = 0;
  if( action==SQLITE_ALTER_TABLE ){ a = b; b = 0; } /* the first was the database */
  sqlite3_snprintf((int)sizeof g->denied, g->denied, "%s|%s|%s", known ? ACTIONS[action] : "UNKNOWN", a ? a : "",
      b ? b : "");
}

int kimberlite_authorize(void *p, int action, const char *a, const char *b, const char *db, const char *within){
  Guard *g = p;
  if( g->mode==TRUSTED || g->mode==REPLAY ) return SQLITE_OK;
  g->asked = 1;
  /* Of a read alone: kimberlite_leave may have to be compiled anew, and reads nothing. */
  if( action==SQLITE_READ && __atomic_load_n(&g->expired, __ATOMIC_RELAXED) ) return SQLITE_DENY;
  if( (action==SQLITE_ANALYZE || action==SQLITE_REINDEX) && g->mode==WRITE && reserved(a) ) return SQLITE_IGNORE;
  if( !permitted(g, action, a, b, db, within) ){
    record(g, action, a, b);
    return SQLITE_DENY;
  }
  g->seen |= effect(action, a, b, within);
  if( opens_ddl(action) ) sqlite3_set_errmsg(g->db, DDL_MARK, 0);
  return SQLITE_OK;
}
