/*
 * What tenants' SQL may name: functions and pragmas. Everything else is refused.
 *
 * Invariant: each list is sorted in ASCII order of lower case, because it is searched by bisection; guard.test.ts
 * compares them with what the SQLite library really registers. Left out on purpose: load_extension; sqlite3mc_*
 * (they reveal cipher settings and codec data); fts3_tokenizer and fts5 (they hand out C pointers); sqlite_log;
 * FTS3, R-Tree and Geopoly, whose modules are refused too.
 */
#ifndef KIMBERLITE_ALLOWED_H
#define KIMBERLITE_ALLOWED_H

static const char *const FUNCTIONS[] = {
    "->", "->>", "abs", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "avg", "bm25", "ceil",
    "ceiling", "changes", "char", "coalesce", "concat", "concat_ws", "cos", "cosh", "count", "cume_dist",
    "current_date", "current_time", "current_timestamp", "date", "datetime", "degrees", "dense_rank", "exp",
    "first_value", "floor", "format", "fts5_get_locale", "fts5_insttoken", "fts5_locale", "fts5_source_id",
    "glob", "group_concat", "hex", "highlight", "if", "ifnull", "iif", "instr", "json", "json_array",
    "json_array_insert", "json_array_length", "json_error_position", "json_extract", "json_group_array",
    "json_group_object", "json_insert", "json_object", "json_pretty", "json_quote", "json_remove",
    "json_replace", "json_set", "json_type", "json_valid", "jsonb", "jsonb_array", "jsonb_array_insert",
    "jsonb_extract", "jsonb_group_array", "jsonb_group_object", "jsonb_insert", "jsonb_object",
    "jsonb_remove", "jsonb_replace", "jsonb_set", "julianday", "lag", "last_insert_rowid", "last_value", "lead",
    "length", "like", "likelihood", "likely", "ln", "log", "log10", "log2", "lower", "ltrim", "match", "max",
    "median", "min", "mod", "nth_value", "ntile", "nullif", "octet_length", "percent_rank", "percentile",
    "percentile_cont", "percentile_disc", "pi", "pow", "power", "printf", "quote", "radians", "random",
    "randomblob", "rank", "replace", "round", "row_number", "rtrim", "sign", "sin", "sinh", "snippet",
    "soundex", "sqlite_compileoption_get", "sqlite_compileoption_used", "sqlite_source_id", "sqlite_version",
    "sqrt", "strftime", "string_agg", "substr", "substring", "subtype", "sum", "tan", "tanh", "time",
    "timediff", "total", "total_changes", "trim", "trunc", "typeof", "unhex", "unicode", "unistr",
    "unistr_quote", "unixepoch", "unlikely", "upper", "zeroblob",
};

/* Used by ALTER TABLE in statements of SQLite's own, which refuses them in anybody else's. */
static const char *const ALTER_FUNCTIONS[] = {
    "sqlite_add_constraint", "sqlite_drop_column", "sqlite_drop_constraint", "sqlite_fail",
    "sqlite_find_constraint", "sqlite_rename_column", "sqlite_rename_quotefix", "sqlite_rename_table",
    "sqlite_rename_test",
};

/* Read-only whatever the argument, which is the name of a table or index, or a count. */
static const char *const PRAGMAS_WITH_NAME[] = {
    "foreign_key_check", "foreign_key_list", "index_info", "index_list", "index_xinfo", "integrity_check",
    "quick_check", "table_info", "table_xinfo",
};

/* Read-only without an argument, refused with one. FTS5 itself asks for data_version. */
static const char *const PRAGMAS_BARE[] = {
    "application_id", "busy_timeout", "collation_list", "compile_options", "data_version", "encoding",
    "foreign_keys", "freelist_count", "page_count", "page_size", "recursive_triggers", "schema_version",
};

/* May be set in a writing connection and read in any. */
static const char *const PRAGMAS_SETTABLE[] = {"defer_foreign_keys", "user_version"};

/* Virtual tables that exist without CREATE and show more than the tenant's own rows. */
static const char *const HIDDEN_TABLES[] = {
    "bytecode", "dbstat", "fts3tokenize", "sqlite_dbdata", "sqlite_dbpage", "sqlite_dbptr", "sqlite_stmt",
    "tables_used",
};

#endif
