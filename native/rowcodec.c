/*
 * Row images: kimberlite_row(v1, ...) packs SQL values into one CBOR array (RFC 8949), kimberlite_col(image, i)
 * unpacks one of them.
 *
 * Invariants: the storage class of every value survives exactly (1 is not 1.0, -0.0 is not 0.0, TEXT with
 * invalid UTF-8 keeps its bytes under tag 40000); equal rows give equal images (RFC 8949 section 4.2.1: shortest
 * lengths, floats always 64 bits, definite lengths); an image is read completely before a value is returned.
 * Faults survived: any bytes as an image. They give an SQL error, never a read outside the image.
 */
#include "guard.h"
SQLITE_EXTENSION_INIT3

#include <string.h>

enum { UNSIGNED = 0x00, NEGATIVE = 0x20, BYTES = 0x40, TEXT = 0x60, ARRAY = 0x80, TAG = 0xc0 };
enum { NULL_ITEM = 0xf6, FLOAT64 = 0xfb, RAW_TEXT_TAG = 40000, RAW_TEXT_TAG_SIZE = 3 };

/* One item of an image; `body` points into the image. */
struct item {
  int major;              /* one of the majors above, TAG for raw text, NULL_ITEM, or FLOAT64 */
  uint64_t argument;      /* integer, float bits, or length of `body` */
  const unsigned char *body;
};

/* RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. NUL is a character like others. */
static int is_utf8(const unsigned char *s, size_t n){
  size_t i = 0;
  while( i<n ){
    unsigned char c = s[i];
    if( c<0x80 ){
      uint64_t eight;
      while( i+8<=n && (memcpy(&eight, s+i, 8), (eight & 0x8080808080808080u)==0) ) i += 8;
      while( i<n && s[i]<0x80 ) i++;
      continue;
    }
    size_t more = c>=0xf0 ? 3 : c>=0xe0 ? 2 : 1;
    if( c<0xc2 || c>0xf4 || n-i<=more ) return 0;
    unsigned char second = s[i+1];
    if( (c==0xe0 && second<0xa0) || (c==0xed && second>0x9f) ) return 0;
    if( (c==0xf0 && second<0x90) || (c==0xf4 && second>0x8f) ) return 0;
    for(size_t k=1; k<=more; k++) if( (s[i+k] & 0xc0)!=0x80 ) return 0;
    i += more+1;
  }
  return 1;
}

static size_t head_size(uint64_t argument){
  return argument<24 ? 1 : argument<=0xff ? 2 : argument<=0xffff ? 3 : argument<=0xffffffffu ? 5 : 9;
}

static unsigned char *put_big_endian(unsigned char *out, uint64_t value, size_t width){
  for(size_t i=0; i<width; i++) out[i] = (unsigned char)(value >> (8*(width-1-i)));
  return out+width;
}

static unsigned char *put_head(unsigned char *out, int major, uint64_t argument){
  static const unsigned char INFO[10] = {0, 0, 24, 25, 0, 26, 0, 0, 0, 27};
  size_t size = head_size(argument);
  *out++ = (unsigned char)(major | (int)(size==1 ? argument : INFO[size]));
  return put_big_endian(out, argument, size-1);
}

/* Describes an SQL value as an item; 0 when SQLite has no memory for its bytes. */
static int describe(sqlite3_value *value, struct item *item){
  int type = sqlite3_value_type(value);
  item->body = 0;
  if( type==SQLITE_INTEGER ){
    sqlite3_int64 v = sqlite3_value_int64(value);
    item->major = v<0 ? NEGATIVE : UNSIGNED;
    item->argument = v<0 ? ~(uint64_t)v : (uint64_t)v;
  }else if( type==SQLITE_FLOAT ){
    double d = sqlite3_value_double(value);
    item->major = FLOAT64;
    memcpy(&item->argument, &d, sizeof d);
  }else if( type==SQLITE_NULL ){
    item->major = NULL_ITEM;
    item->argument = 0;
  }else{
    item->body = type==SQLITE_TEXT ? sqlite3_value_text(value) : sqlite3_value_blob(value);
    item->argument = (uint64_t)sqlite3_value_bytes(value);
    if( item->body==0 && item->argument>0 ) return 0;
    item->major = type==SQLITE_BLOB ? BYTES : is_utf8(item->body, (size_t)item->argument) ? TEXT : TAG;
  }
  return 1;
}

static size_t item_size(const struct item *item){
  switch( item->major ){
    case NULL_ITEM: return 1;
    case FLOAT64: return 9;
    case UNSIGNED: case NEGATIVE: return head_size(item->argument);
    default: return (item->major==TAG ? RAW_TEXT_TAG_SIZE : 0) + head_size(item->argument) + (size_t)item->argument;
  }
}

static unsigned char *put_item(unsigned char *out, const struct item *item){
  switch( item->major ){
    case NULL_ITEM: *out++ = NULL_ITEM; return out;
    case FLOAT64: *out++ = FLOAT64; return put_big_endian(out, item->argument, 8);
    case UNSIGNED: case NEGATIVE: return put_head(out, item->major, item->argument);
    case TAG: out = put_head(out, TAG, RAW_TEXT_TAG); break;
    default: break;
  }
  out = put_head(out, item->major==TAG ? BYTES : item->major, item->argument);
  if( item->argument>0 ) memcpy(out, item->body, (size_t)item->argument);
  return out+item->argument;
}

/* kimberlite_row(v1, ...) -> BLOB. Two passes over the values, so the result is the one allocation. */
static void row_function(sqlite3_context *context, int argc, sqlite3_value **argv){
  struct item item;
  size_t size = head_size((uint64_t)argc);
  for(int i=0; i<argc; i++){
    if( !describe(argv[i], &item) ){ sqlite3_result_error_nomem(context); return; }
    size += item_size(&item);
  }
  if( size>(size_t)sqlite3_limit(sqlite3_context_db_handle(context), SQLITE_LIMIT_LENGTH, -1) ){
    sqlite3_result_error_toobig(context);
    return;
  }
  unsigned char *image = sqlite3_malloc64(size);
  if( image==0 ){ sqlite3_result_error_nomem(context); return; }
  unsigned char *out = put_head(image, ARRAY, (uint64_t)argc);
  for(int i=0; i<argc; i++){
    describe(argv[i], &item);
    out = put_item(out, &item);
  }
  sqlite3_result_blob64(context, image, (sqlite3_uint64)(out-image), sqlite3_free);
}

/* Reads a head in its shortest form; returns what follows it, or 0. `end-p` bytes are readable. */
static const unsigned char *read_head(const unsigned char *p, const unsigned char *end, int *major, uint64_t *argument){
  if( p>=end ) return 0;
  int info = *p & 0x1f;
  *major = *p++ & 0xe0;
  if( info<24 ){ *argument = (uint64_t)info; return p; }
  if( info>27 ) return 0;
  size_t width = (size_t)1 << (info-24);
  if( (size_t)(end-p)<width ) return 0;
  uint64_t value = 0;
  for(size_t i=0; i<width; i++) value = value<<8 | p[i];
  if( head_size(value)!=width+1 ) return 0;
  *argument = value;
  return p+width;
}

/* Reads one item as put_item writes it; returns what follows it, or 0 for anything else. */
static const unsigned char *read_item(const unsigned char *p, const unsigned char *end, struct item *item){
  if( p>=end ) return 0;
  item->body = 0;
  if( *p==NULL_ITEM ){ item->major = NULL_ITEM; item->argument = 0; return p+1; }
  if( *p==FLOAT64 ){
    if( end-p<9 ) return 0;
    item->major = FLOAT64;
    item->argument = 0;
    for(int i=1; i<=8; i++) item->argument = item->argument<<8 | p[i];
    return p+9;
  }
  p = read_head(p, end, &item->major, &item->argument);
  if( p==0 ) return 0;
  if( item->major==UNSIGNED || item->major==NEGATIVE ) return item->argument<=INT64_MAX ? p : 0;
  if( item->major==TAG ){
    int inner;
    if( item->argument!=RAW_TEXT_TAG ) return 0;
    p = read_head(p, end, &inner, &item->argument);
    if( p==0 || inner!=BYTES ) return 0;
  }else if( item->major!=BYTES && item->major!=TEXT ){
    return 0;
  }
  if( item->argument>(uint64_t)(end-p) ) return 0;
  item->body = p;
  return p+item->argument;
}

/* Hands the item to SQL; 0 when no SQL value packs to it (NaN, text under the wrong major type). */
static int result_item(sqlite3_context *context, const struct item *item){
  const char *body = (const char*)item->body;
  double d;
  switch( item->major ){
    case UNSIGNED: sqlite3_result_int64(context, (sqlite3_int64)item->argument); return 1;
    case NEGATIVE: sqlite3_result_int64(context, -1-(sqlite3_int64)item->argument); return 1;
    case NULL_ITEM: sqlite3_result_null(context); return 1;
    case BYTES: sqlite3_result_blob64(context, body, item->argument, SQLITE_TRANSIENT); return 1;
    case FLOAT64:
      memcpy(&d, &item->argument, sizeof d);
      if( d!=d ) return 0;
      sqlite3_result_double(context, d);
      return 1;
    default:
      if( is_utf8(item->body, (size_t)item->argument)!=(item->major==TEXT) ) return 0;
      sqlite3_result_text64(context, body, item->argument, SQLITE_TRANSIENT, SQLITE_UTF8);
      return 1;
  }
}

/* kimberlite_col(image, index) -> the value with its original storage class. */
static void col_function(sqlite3_context *context, int argc, sqlite3_value **argv){
  (void)argc;
  int major = -1, intact = 0;
  uint64_t count = 0;
  struct item item, wanted = {0, 0, 0};
  sqlite3_int64 index = sqlite3_value_int64(argv[1]);
  if( sqlite3_value_type(argv[0])==SQLITE_BLOB ){
    const unsigned char *p = sqlite3_value_blob(argv[0]);
    const unsigned char *end = p==0 ? p : p+sqlite3_value_bytes(argv[0]);
    p = p==0 ? p : read_head(p, end, &major, &count);
    if( p!=0 && major==ARRAY && index>=0 && (uint64_t)index<count ){
      for(uint64_t i=0; p!=0 && i<count; i++){
        p = read_item(p, end, &item);
        if( i==(uint64_t)index ) wanted = item;
      }
      intact = p!=0 && p==end;
    }
  }
  if( !intact || !result_item(context, &wanted) ){
    sqlite3_result_error(context, "kimberlite: not a row image, or no such column in it", -1);
  }
}

int kimberlite_register_rowcodec(sqlite3 *db){
  const int pure = SQLITE_UTF8 | SQLITE_DETERMINISTIC;
  int rc = sqlite3_create_function_v2(db, "kimberlite_row", -1, pure, 0, row_function, 0, 0, 0);
  if( rc!=SQLITE_OK ) return rc;
  return sqlite3_create_function_v2(
      db, "kimberlite_col", 2, pure | SQLITE_DIRECTONLY, 0, col_function, 0, 0, 0);
}
