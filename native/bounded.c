/*
 * instr, replace, trim and unhex again, in time that a tenant cannot stretch.
 *
 * A deadline interrupts between the steps of a statement, not within one call of a function, and SQLite's own versions
 * take time in proportion to the product of their arguments' sizes: instr over 2 MB ran 26 s, over 32 MB it would run
 * for hours, and hold its thread. These take linear time, or ask every 65,536 comparisons whether they are interrupted.
 *
 * Invariant: same results as SQLite's, byte for byte (guard-functions.test.ts compares them), also for text that is
 * not UTF-8 and for characters cut in half.
 */
#include "guard.h"
SQLITE_EXTENSION_INIT3

#include <string.h>

typedef const unsigned char *Bytes;

/* Bytes below 0x80, as a set; the others never are in it. */
typedef struct { unsigned char has[128]; } AsciiSet;

/* Whether the set, which ends at its first NUL, is plain ASCII; then it is in `set`. */
static int ascii_set(Bytes characters, AsciiSet *set){
  memset(set, 0, sizeof *set);
  for(; *characters; characters++){
    if( *characters>=0x80 ) return 0;
    set->has[*characters] = 1;
  }
  return 1;
}

/* Counts comparisons; 1 with the error set when the deadline passed meanwhile. */
static int interrupted(sqlite3_context *context, unsigned *comparisons){
  if( (++*comparisons & 0xffff)!=0 || !sqlite3_is_interrupted(sqlite3_context_db_handle(context)) ) return 0;
  sqlite3_result_error_code(context, SQLITE_INTERRUPT);
  return 1;
}

static void instr_function(sqlite3_context *context, int argc, sqlite3_value **argv){
  int blobs = 0;
  Bytes p[2];
  size_t n[2] = {0, 0};
  for(int i=0; i<argc; i++){
    int type = sqlite3_value_type(argv[i]);
    if( type==SQLITE_NULL ) return;
    blobs += type==SQLITE_BLOB;
    p[i] = type==SQLITE_BLOB ? sqlite3_value_blob(argv[i]) : sqlite3_value_text(argv[i]);
    n[i] = (size_t)sqlite3_value_bytes(argv[i]);
    if( n[i]>0 && p[i]==0 ){ sqlite3_result_error_nomem(context); return; }
  }
  if( n[1]==0 ){ sqlite3_result_int(context, 1); return; }
  if( n[0]<n[1] ){ sqlite3_result_int(context, 0); return; }
  /* In text only the first position may lie within a character. */
  size_t within = blobs<2 && (p[1][0] & 0xc0)==0x80 ? n[1] : n[0];
  Bytes found = memmem(p[0], within, p[1], n[1]);
  size_t position = 1;
  for(Bytes q=p[0]+1; found && q<=found; q++) position += blobs==2 || (*q & 0xc0)!=0x80;
  sqlite3_result_int64(context, found ? (sqlite3_int64)position : 0);
}

static void replace_function(sqlite3_context *context, int argc, sqlite3_value **argv){
  (void)argc;
  Bytes p[3];
  size_t n[3];
  for(int i=0; i<3; i++){
    if( (p[i] = sqlite3_value_text(argv[i]))==0 ) return;
    n[i] = (size_t)sqlite3_value_bytes(argv[i]);
    if( i==1 && p[1][0]==0 ){ sqlite3_result_text64(context, (const char*)p[0], n[0], SQLITE_TRANSIENT, SQLITE_UTF8); return; }
  }
  Bytes end = p[0]+n[0], at, found;
  uint64_t count = 0;
  for(at=p[0]; (found = memmem(at, (size_t)(end-at), p[1], n[1]))!=0; at=found+n[1]) count++;
  uint64_t size = n[0]+count*n[2]-count*n[1];
  if( size>(uint64_t)sqlite3_limit(sqlite3_context_db_handle(context), SQLITE_LIMIT_LENGTH, -1) ){
    sqlite3_result_error_toobig(context);
    return;
  }
  unsigned char *result = sqlite3_malloc64(size+1), *out = result;
  if( result==0 ){ sqlite3_result_error_nomem(context); return; }
  for(at=p[0]; count>0; count--, at=found+n[1]){
    found = memmem(at, (size_t)(end-at), p[1], n[1]);
    memcpy(out, at, (size_t)(found-at));
    out += found-at;
    memcpy(out, p[2], n[2]);
    out += n[2];
  }
  memcpy(out, at, (size_t)(end-at));
  sqlite3_result_text64(context, (char*)result, size, sqlite3_free, SQLITE_UTF8);
}

/* Length of the character at `z` as SQLite skips it: a lead byte takes all continuation bytes after it. */
static size_t character(Bytes z){
  size_t n = 1;
  if( z[0]>=0xc0 ) while( (z[n] & 0xc0)==0x80 ) n++;
  return n;
}

/* How many bytes the first character of the set takes that stands at the edge of the text; 0: none does. */
static size_t trimmable(sqlite3_context *context, Bytes text, size_t n, int right, Bytes set, unsigned *comparisons){
  for(size_t length; *set; set+=length){
    length = character(set);
    if( length<=n && memcmp(right ? text+n-length : text, set, length)==0 ) return length;
    if( interrupted(context, comparisons) ) return 0;
  }
  return 0;
}

/* trim, ltrim and rtrim with a set; the user data holds 1 for the left and 2 for the right side. */
static void trim_function(sqlite3_context *context, int argc, sqlite3_value **argv){
  const int sides = *(const int*)sqlite3_user_data(context);
  Bytes text = sqlite3_value_text(argv[0]), set = argc==2 ? sqlite3_value_text(argv[1]) : 0;
  unsigned comparisons = 0;
  AsciiSet ascii;
  if( text==0 || set==0 ) return;
  size_t n = (size_t)sqlite3_value_bytes(argv[0]);
  if( ascii_set(set, &ascii) ){
    for(; (sides & 1) && n>0 && text[0]<0x80 && ascii.has[text[0]]; n--) text++;
    while( (sides & 2) && n>0 && text[n-1]<0x80 && ascii.has[text[n-1]] ) n--;
  }else{
    size_t length;
    while( (sides & 1) && n>0 && (length = trimmable(context, text, n, 0, set, &comparisons))>0 ){ text += length; n -= length; }
    while( (sides & 2) && n>0 && (length = trimmable(context, text, n, 1, set, &comparisons))>0 ) n -= length;
    if( comparisons>0xffff && sqlite3_is_interrupted(sqlite3_context_db_handle(context)) ) return;
  }
  sqlite3_result_text64(context, (const char*)text, n, SQLITE_TRANSIENT, SQLITE_UTF8);
}

/* The code point at `z` as SQLite reads it, whatever the bytes. */
static uint32_t code_point(Bytes z){
  uint32_t c = z[0];
  if( c<0xc0 ) return c;
  c &= c<0xe0 ? 0x1f : c<0xf0 ? 0x0f : c<0xf8 ? 0x07 : c<0xfc ? 0x03 : c<0xfe ? 0x01 : 0;
  for(size_t i=1; (z[i] & 0xc0)==0x80; i++) c = (c<<6) + (z[i] & 0x3f);
  return c<0x80 || (c & 0xfffff800)==0xd800 || (c & 0xfffffffe)==0xfffe ? 0xfffd : c;
}

static int digit(unsigned char c){
  return c>='0' && c<='9' ? c-'0' : (c|32)>='a' && (c|32)<='f' ? (c|32)-'a'+10 : -1;
}

/* Whether the character at `z` may stand between digits. */
static int passes(sqlite3_context *context, Bytes z, Bytes pass, size_t n, const AsciiSet *ascii, unsigned *comparisons){
  uint32_t wanted = code_point(z);
  if( ascii ) return wanted<0x80 && ascii->has[wanted];
  for(Bytes p=pass; p<pass+n; p+=character(p)){
    if( code_point(p)==wanted ) return 1;
    if( interrupted(context, comparisons) ) return 0;
  }
  return 0;
}

/* unhex with the characters that may stand between digits. */
static void unhex_function(sqlite3_context *context, int argc, sqlite3_value **argv){
  Bytes hex = sqlite3_value_text(argv[0]), pass = argc==2 ? sqlite3_value_text(argv[1]) : 0;
  if( hex==0 || pass==0 ) return;
  size_t n = (size_t)sqlite3_value_bytes(argv[1]);
  unsigned comparisons = 0;
  AsciiSet set;
  const AsciiSet *ascii = ascii_set(pass, &set) && strlen((const char*)pass)==n ? &set : 0;
  unsigned char *blob = sqlite3_malloc64((sqlite3_uint64)sqlite3_value_bytes(argv[0])/2+1), *out = blob;
  if( blob==0 ){ sqlite3_result_error_nomem(context); return; }
  while( *hex ){
    if( digit(*hex)>=0 && digit(hex[1])>=0 ){
      *out++ = (unsigned char)(digit(hex[0])<<4 | digit(hex[1]));
      hex += 2;
    }else if( digit(*hex)<0 && passes(context, hex, pass, n, ascii, &comparisons) ){
      hex += character(hex);
    }else{
      sqlite3_free(blob);
      return;
    }
  }
  sqlite3_result_blob64(context, blob, (sqlite3_uint64)(out-blob), sqlite3_free);
}

int kimberlite_register_bounded(sqlite3 *db){
  static int LEFT = 1, RIGHT = 2, BOTH = 3;
  static const struct { const char *name; int argc; int *data; void (*call)(sqlite3_context*, int, sqlite3_value**); } ALL[] = {
      {"instr", 2, 0, instr_function}, {"replace", 3, 0, replace_function}, {"ltrim", 2, &LEFT, trim_function},
      {"rtrim", 2, &RIGHT, trim_function}, {"trim", 2, &BOTH, trim_function}, {"unhex", 2, 0, unhex_function},
  };
  int rc = SQLITE_OK;
  for(size_t i=0; rc==SQLITE_OK && i<sizeof ALL/sizeof ALL[0]; i++){
    rc = sqlite3_create_function_v2(db, ALL[i].name, ALL[i].argc,
        SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS, ALL[i].data, ALL[i].call, 0, 0, 0);
  }
  return rc;
}
