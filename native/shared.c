/*
 * A table of one connection, read through another: how a shared table is shown to a reader whose SQL runs in an SQLite
 * database of its own, where nothing else is.
 *
 * The owner's connection offers a query (kimberlite_offer). CREATE VIRTUAL TABLE … USING kimberlite_shared on another
 * connection of the same thread, while that is trusted, takes the offer. Each scan compiles the query on the owner's
 * connection, under the owner's guard, and steps it there. Of the reader's SQL nothing reaches the owner's connection
 * but comparisons of an offered column with a value.
 *
 * Invariants: an offer is taken once; the owner's connection is touched only while its guard is entered for reading;
 * a comparison handed on never loses a row (SQLite checks it again); the rowids shown are stable in a snapshot and say
 * nothing of the real ones; what fails in the owner's query says nothing but that it failed.
 * Faults survived: an offer that nobody takes, an owner's connection that closed, a schema that is read again.
 */
#include "guard.h"
SQLITE_EXTENSION_INIT3

#include <stdlib.h>
#include <string.h>

enum { MAX_PUSHED = 16 };

struct Source {
  Guard *guard;       /* of the owner's connection; 0 once that is gone */
  char *declaration;  /* CREATE TABLE, for the reader's connection */
  char *query;        /* gives columns c0, c1, … and, if `stable`, then the rowid */
  char *kinds;        /* a letter a column: n numeric, t text, anything else: never compared by the owner */
  int width, stable;
  uint64_t masks[2];  /* hide the real rowids */
  Source *next, **link;
};

typedef struct { sqlite3_vtab base; Source *source; } Table;
typedef struct { sqlite3_vtab_cursor base; sqlite3_stmt *statement; char *text; sqlite3_int64 row; int ended; } Cursor;

static _Thread_local Source *offered;

static void drop(Source *s){
  if( s==0 ) return;
  if( s->link ){
    *s->link = s->next;
    if( s->next ) s->next->link = s->link;
  }
  sqlite3_free(s->declaration);
  sqlite3_free(s->query);
  sqlite3_free(s->kinds);
  sqlite3_free(s);
}

void kimberlite_withdraw(Guard *g){
  for(Source *s=g->sources, *next; s; s=next){
    next = s->next;
    s->guard = 0;
    s->link = 0;
    s->next = 0;
    if( s==offered ){ offered = 0; drop(s); }
  }
  g->sources = 0;
}

/* (secret, declaration, query, kinds, stable) while trusted. */
void kimberlite_offer(sqlite3_context *context, int argc, sqlite3_value **argv){
  Guard *g = kimberlite_authenticate(context, argv[0]);
  if( g==0 || argc!=5 ) return;
  if( g->mode!=TRUSTED || sqlite3_value_type(argv[1])!=SQLITE_TEXT || sqlite3_value_type(argv[2])!=SQLITE_TEXT ||
      sqlite3_value_type(argv[3])!=SQLITE_TEXT ){
    sqlite3_result_error_code(context, SQLITE_MISUSE);
    return;
  }
  Source *s = sqlite3_malloc(sizeof *s);
  if( s==0 ){ sqlite3_result_error_nomem(context); return; }
  memset(s, 0, sizeof *s);
  s->declaration = sqlite3_mprintf("%s", sqlite3_value_text(argv[1]));
  s->query = sqlite3_mprintf("%s", sqlite3_value_text(argv[2]));
  s->kinds = sqlite3_mprintf("%s", sqlite3_value_text(argv[3]));
  if( !s->declaration || !s->query || !s->kinds ){ drop(s); sqlite3_result_error_nomem(context); return; }
  s->width = (int)strlen(s->kinds);
  s->stable = sqlite3_value_int(argv[4]);
  sqlite3_randomness(sizeof s->masks, s->masks);
  s->guard = g;
  s->next = g->sources;
  s->link = &g->sources;
  if( s->next ) s->next->link = &s->next;
  g->sources = s;
  drop(offered);
  offered = s;
}

/* (secret, table, column) while trusted: the collation that the column was declared with. */
void kimberlite_collation(sqlite3_context *context, int argc, sqlite3_value **argv){
  Guard *g = kimberlite_authenticate(context, argv[0]);
  const char *name = 0;
  if( g==0 || argc!=3 || g->mode!=TRUSTED ) return;
  const char *table = (const char*)sqlite3_value_text(argv[1]), *column = (const char*)sqlite3_value_text(argv[2]);
  if( table && column && sqlite3_table_column_metadata(g->db, "main", table, column, 0, &name, 0, 0, 0)==SQLITE_OK ){
    sqlite3_result_text(context, name, -1, SQLITE_TRANSIENT);
  }
}

static int refuse(char **error){
  *error = sqlite3_mprintf("kimberlite: nothing is offered");
  return SQLITE_ERROR;
}

static int table_create(sqlite3 *db, void *p, int argc, const char *const *argv, sqlite3_vtab **made, char **error){
  Source *s = offered;
  (void)argc; (void)argv;
  if( s==0 || s->guard==0 || s->guard->db==db || ((Guard*)p)->mode!=TRUSTED ) return refuse(error);
  int rc = sqlite3_declare_vtab(db, s->declaration);
  if( rc!=SQLITE_OK ) return rc;
  Table *t = sqlite3_malloc(sizeof *t);
  if( t==0 ) return SQLITE_NOMEM;
  memset(t, 0, sizeof *t);
  t->source = s;
  offered = 0;
  *made = &t->base;
  return SQLITE_OK;
}

/* A schema that is read again would connect to an offer that was taken: the table is gone then. */
static int table_connect(sqlite3 *db, void *p, int argc, const char *const *argv, sqlite3_vtab **made, char **error){
  (void)db; (void)p; (void)argc; (void)argv; (void)made;
  return refuse(error);
}

static int table_close(sqlite3_vtab *v){
  drop(((Table*)v)->source);
  sqlite3_free(v);
  return SQLITE_OK;
}

static char operator_of(int op){
  return op==SQLITE_INDEX_CONSTRAINT_EQ ? '=' : op==SQLITE_INDEX_CONSTRAINT_GT ? '>' :
         op==SQLITE_INDEX_CONSTRAINT_LT ? '<' : op==SQLITE_INDEX_CONSTRAINT_GE ? 'g' :
         op==SQLITE_INDEX_CONSTRAINT_LE ? 'l' : 0;
}

static char collation_of(const char *name){
  return sqlite3_stricmp(name, "BINARY")==0 ? 'B' : sqlite3_stricmp(name, "NOCASE")==0 ? 'N' :
         sqlite3_stricmp(name, "RTRIM")==0 ? 'R' : 0;
}

/* Which comparisons the owner's connection may make too, as `<column><operator><collation>` each. Where a numeric
 * operand meets a text column SQLite compares numbers, so of text only equality is handed on, and only for a text. */
static int table_plan(sqlite3_vtab *v, sqlite3_index_info *info){
  const Source *s = ((Table*)v)->source;
  sqlite3_str *plan = sqlite3_str_new(0);
  double rows = 1000000;
  int pushed = 0;
  for(int i=0; s->stable && i<info->nConstraint && pushed<MAX_PUSHED; i++){
    const int column = info->aConstraint[i].iColumn;
    const char op = operator_of(info->aConstraint[i].op);
    if( !info->aConstraint[i].usable || op==0 || column<0 || column>=s->width ) continue;
    if( s->kinds[column]!='n' && (s->kinds[column]!='t' || op!='=') ) continue;
    const char collation = collation_of(sqlite3_vtab_collation(info, i));
    if( collation==0 ) continue;
    sqlite3_str_appendf(plan, "%d%c%c", column, op, collation);
    info->aConstraintUsage[i].argvIndex = ++pushed;
    rows /= op=='=' ? 1000 : 4;
  }
  int rc = sqlite3_str_errcode(plan);
  info->idxStr = sqlite3_str_finish(plan);
  info->needToFreeIdxStr = info->idxStr!=0;
  info->estimatedCost = rows<1 ? 1 : rows;
  info->estimatedRows = (sqlite3_int64)info->estimatedCost;
  return rc;
}

static int cursor_open(sqlite3_vtab *v, sqlite3_vtab_cursor **opened){
  Cursor *c = sqlite3_malloc(sizeof *c);
  (void)v;
  if( c==0 ) return SQLITE_NOMEM;
  memset(c, 0, sizeof *c);
  *opened = &c->base;
  return SQLITE_OK;
}

static int cursor_close(sqlite3_vtab_cursor *p){
  Cursor *c = (Cursor*)p;
  sqlite3_finalize(c->statement);
  sqlite3_free(c->text);
  sqlite3_free(c);
  return SQLITE_OK;
}

/* The owner's own message could name what is not shared. */
static int failed(Cursor *c, int rc){
  c->ended = 1;
  switch( rc&0xff ){
    case SQLITE_INTERRUPT: case SQLITE_NOMEM: case SQLITE_IOERR: case SQLITE_CORRUPT: case SQLITE_NOTADB: return rc;
    default: break;
  }
  sqlite3_free(c->base.pVtab->zErrMsg);
  c->base.pVtab->zErrMsg = sqlite3_mprintf("the shared table cannot be read");
  return SQLITE_ERROR;
}

static int cursor_next(sqlite3_vtab_cursor *p){
  Cursor *c = (Cursor*)p;
  int rc = sqlite3_step(c->statement);
  if( rc==SQLITE_ROW ){ c->row++; return SQLITE_OK; }
  sqlite3_reset(c->statement);
  c->ended = 1;
  return rc==SQLITE_DONE ? SQLITE_OK : failed(c, rc);
}

static char *query_text(const Source *s, const char *plan, int argc, sqlite3_value **argv){
  sqlite3_str *text = sqlite3_str_new(0);
  int conditions = 0;
  sqlite3_str_appendf(text, "SELECT * FROM (%s)", s->query);
  for(int i=0; plan && i<argc; i++){
    char *at = 0;
    const long column = strtol(plan, &at, 10);
    const char *op = *at=='g' ? ">=" : *at=='l' ? "<=" : *at=='>' ? ">" : *at=='<' ? "<" : "=";
    const char *collation = at[1]=='N' ? "NOCASE" : at[1]=='R' ? "RTRIM" : "BINARY";
    plan = at+2;
    if( s->kinds[column]=='t' && sqlite3_value_type(argv[i])!=SQLITE_TEXT ) continue;
    sqlite3_str_appendf(text, "%s c%ld %s ?%d COLLATE %s", conditions++ ? " AND" : " WHERE", column, op, i+1, collation);
  }
  return sqlite3_str_finish(text);
}

static int cursor_filter(sqlite3_vtab_cursor *p, int number, const char *plan, int argc, sqlite3_value **argv){
  Cursor *c = (Cursor*)p;
  const Source *s = ((Table*)p->pVtab)->source;
  int rc = SQLITE_OK;
  (void)number;
  c->ended = 0;
  c->row = 0;
  if( s->guard==0 || s->guard->mode!=READ ) return failed(c, SQLITE_AUTH);
  char *text = query_text(s, plan, argc, argv);
  if( text==0 ) return SQLITE_NOMEM;
  if( c->statement && strcmp(text, c->text)==0 ){
    sqlite3_free(text);
    sqlite3_reset(c->statement);
    sqlite3_clear_bindings(c->statement);
  }else{
    sqlite3_finalize(c->statement);
    sqlite3_free(c->text);
    c->statement = 0;
    c->text = text;
    rc = sqlite3_prepare_v2(s->guard->db, text, -1, &c->statement, 0);
  }
  if( rc==SQLITE_OK && sqlite3_column_count(c->statement)!=s->width+(s->stable!=0) ) rc = SQLITE_SCHEMA;
  for(int i=0; rc==SQLITE_OK && i<argc; i++){
    rc = sqlite3_bind_value(c->statement, i+1, argv[i]);
    if( rc==SQLITE_RANGE ) rc = SQLITE_OK; /* the last ones were left out */
  }
  return rc==SQLITE_OK ? cursor_next(p) : failed(c, rc);
}

static int cursor_eof(sqlite3_vtab_cursor *p){ return ((Cursor*)p)->ended; }

static int cursor_column(sqlite3_vtab_cursor *p, sqlite3_context *context, int column){
  if( column>=0 && column<((Table*)p->pVtab)->source->width ){
    sqlite3_result_value(context, sqlite3_column_value(((Cursor*)p)->statement, column));
  }
  return SQLITE_OK;
}

static uint64_t mixed(uint64_t x){
  x = (x ^ (x>>30))*UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ (x>>27))*UINT64_C(0x94d049bb133111eb);
  return x ^ (x>>31);
}

/* One to one with the real rowid, where there is one. Without, every scan is the same and places are stable. */
static int cursor_rowid(sqlite3_vtab_cursor *p, sqlite3_int64 *rowid){
  const Cursor *c = (Cursor*)p;
  const Source *s = ((Table*)p->pVtab)->source;
  if( !s->stable ){ *rowid = c->row; return SQLITE_OK; }
  const uint64_t real = (uint64_t)sqlite3_column_int64(c->statement, s->width);
  *rowid = (sqlite3_int64)mixed(mixed(real ^ s->masks[0]) ^ s->masks[1]);
  return SQLITE_OK;
}

static const sqlite3_module MODULE = {
    .iVersion = 1, .xCreate = table_create, .xConnect = table_connect, .xBestIndex = table_plan,
    .xDisconnect = table_close, .xDestroy = table_close, .xOpen = cursor_open, .xClose = cursor_close,
    .xFilter = cursor_filter, .xNext = cursor_next, .xEof = cursor_eof, .xColumn = cursor_column,
    .xRowid = cursor_rowid,
};

int kimberlite_register_shared(Guard *g){
  return sqlite3_create_module_v2(g->db, "kimberlite_shared", &MODULE, g, 0);
}
