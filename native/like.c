/*
 * LIKE and GLOB again, so that a deadline reaches inside them.
 *
 * SQLite's own compare a pattern in time that grows with the product of the lengths, within one call that nothing stops:
 * 250 bytes against 4 MiB took 2.8 s. These give the same answers, keep one place to go back to in the place of a
 * recursion, and ask every 65,536 steps whether they are interrupted.
 *
 * Price: SQLite uses an index for a prefix (name LIKE 'abc%') with its own functions alone.
 *
 * Invariant: same results as SQLite's (guard-functions.test.ts compares them), also for text that is not UTF-8: a text
 * ends at its first NUL, a lead byte takes all continuation bytes after it, a blob matches nothing.
 */
#include "guard.h"
SQLITE_EXTENSION_INIT3

#include <string.h>

typedef const unsigned char *Bytes;

/* What the characters of a pattern mean; 0: nothing does. `plain` holds what an ASCII character is compared as, 0 if it
   means something. */
typedef struct { uint32_t all, one, set, escape; int ignores_case; unsigned char plain[128]; } Language;

typedef enum { NO, YES, STOPPED } Answer;

/* One element of a pattern. */
typedef struct { enum { END, ALL, ONE, SET, LITERAL, NEVER } kind; uint32_t character; Bytes set; } Element;

static uint32_t read_character(Bytes *at){
  uint32_t c = *(*at)++;
  if( c<0xc0 ) return c;
  c = c<0xe0 ? c & 0x1f : c<0xf0 ? c & 0x0f : c<0xf8 ? c & 0x07 : c<0xfc ? c & 0x03 : c<0xfe ? c & 0x01 : 0;
  while( (**at & 0xc0)==0x80 ) c = (c<<6) + (*(*at)++ & 0x3f);
  return c<0x80 || (c & 0xfffff800)==0xd800 || (c & 0xfffffffe)==0xfffe ? 0xfffd : c;
}

static uint32_t lower(uint32_t c){ return c>='A' && c<='Z' ? c+('a'-'A') : c; }

/* Goes past a set, whose "[" is behind `at`; 0 where it has no end. */
static int skip_set(Bytes *at){
  uint32_t c = read_character(at);
  if( c=='^' ) c = read_character(at);
  if( c==']' ) c = read_character(at);
  while( c!=0 && c!=']' ) c = read_character(at);
  return c!=0;
}

/* Whether the set holds the character; it has an end. */
static int set_has(Bytes at, uint32_t c){
  int has = 0, inverted = 0;
  uint32_t prior = 0, next = read_character(&at);
  if( next=='^' ){ inverted = 1; next = read_character(&at); }
  if( next==']' ){ has = c==']'; next = read_character(&at); }
  for(; next!=']'; next=read_character(&at)){
    if( next=='-' && *at!=']' && prior>0 ){
      next = read_character(&at);
      has |= c>=prior && c<=next;
      prior = 0;
    }else{
      has |= c==next;
      prior = next;
    }
  }
  return has!=inverted;
}

static Element next_element(Bytes *pattern, const Language *language){
  Element element = {END, 0, 0};
  uint32_t c = **pattern ? read_character(pattern) : 0;
  if( c==0 ) return element;
  element.kind = LITERAL;
  element.character = c;
  if( c==language->all ) element.kind = ALL;
  else if( language->set && c==language->set ){
    element.set = *pattern;
    element.kind = skip_set(pattern) ? SET : NEVER;
  }else if( c==language->escape ){
    element.character = **pattern ? read_character(pattern) : 0;
    if( element.character==0 ) element.kind = NEVER;
  }else if( c==language->one ) element.kind = ONE;
  return element;
}

static int matches(const Element *element, uint32_t c, const Language *language){
  if( element->kind==ONE ) return 1;
  if( element->kind==SET ) return set_has(element->set, c);
  if( element->kind!=LITERAL ) return 0;
  uint32_t wanted = element->character;
  return c==wanted || (language->ignores_case && c<0x80 && wanted<0x80 && lower(c)==lower(wanted));
}

/* The next place at or after `text` where the literal may stand, or the text's end. */
static Bytes seek(Bytes text, Bytes end, const Element *element, const Language *language){
  uint32_t c = element->character;
  if( element->kind!=LITERAL || c>=0x80 ) return text;
  if( language->ignores_case && lower(c)>='a' && lower(c)<='z' ){
    const char either[3] = {(char)lower(c), (char)(lower(c)-('a'-'A')), 0};
    return text+strcspn((const char*)text, either);
  }
  Bytes found = memchr(text, (int)c, (size_t)(end-text));
  return found ? found : end;
}

static void note_plain(Language *language){
  for(uint32_t c=0; c<128; c++){
    int means = c==0 || c==language->all || c==language->one || c==language->set || c==language->escape;
    language->plain[c] = means ? 0 : (unsigned char)(language->ignores_case ? lower(c) : c);
  }
}

/* Where, from `text` on, what follows a "%" may begin. */
static Bytes begin_after_all(Bytes pattern, Bytes text, Bytes end, const Language *language){
  Element first = next_element(&pattern, language);
  return seek(text, end, &first, language);
}

static Answer compare(sqlite3 *db, Bytes pattern, Bytes text, const Language *language){
  const Bytes end = text+strlen((const char*)text);
  /* Behind the last "%" that was met, and where in the text what follows it was tried last. */
  Bytes after = 0, tried = 0;
  for(unsigned steps=1;; steps++){
    if( (steps & 0xffff)==0 && sqlite3_is_interrupted(db) ) return STOPPED;
    unsigned char wanted = *pattern<0x80 ? language->plain[*pattern] : 0;
    if( wanted && *text<0x80 ){
      if( (language->ignores_case ? lower(*text) : *text)==wanted ){ pattern++; text++; continue; }
      if( after==0 || text==end ) return NO;
      read_character(&tried);
      pattern = after;
      text = tried = begin_after_all(after, tried, end, language);
      continue;
    }
    Element element = next_element(&pattern, language);
    if( element.kind==ALL ){
      if( *pattern==0 ) return YES;
      after = pattern;
      text = tried = begin_after_all(after, text, end, language);
      continue;
    }
    if( element.kind==NEVER ) return NO;
    if( text==end ){
      /* What is left of the text from any later place is shorter still. */
      return element.kind==END ? YES : NO;
    }
    if( element.kind!=END && matches(&element, read_character(&text), language) ) continue;
    if( after==0 ) return NO;
    read_character(&tried);
    pattern = after;
    text = tried = begin_after_all(after, tried, end, language);
  }
}

static void match_function(sqlite3_context *context, int argc, sqlite3_value **argv){
  sqlite3 *db = sqlite3_context_db_handle(context);
  const Language *known = sqlite3_user_data(context);
  Language escaped;
  for(int i=0; i<2; i++) if( sqlite3_value_type(argv[i])==SQLITE_BLOB ){ sqlite3_result_int(context, 0); return; }
  if( sqlite3_value_bytes(argv[0])>sqlite3_limit(db, SQLITE_LIMIT_LIKE_PATTERN_LENGTH, -1) ){
    sqlite3_result_error(context, "LIKE or GLOB pattern too complex", -1);
    return;
  }
  if( argc==3 ){
    Bytes escape = sqlite3_value_text(argv[2]);
    if( escape==0 ) return;
    uint32_t c = *escape ? read_character(&escape) : 0;
    if( c==0 || *escape ){
      sqlite3_result_error(context, "ESCAPE expression must be a single character", -1);
      return;
    }
    escaped = *known;
    escaped.escape = c;
    if( c==escaped.all ) escaped.all = 0;
    if( c==escaped.one ) escaped.one = 0;
    note_plain(&escaped);
    known = &escaped;
  }
  Bytes pattern = sqlite3_value_text(argv[0]), text = sqlite3_value_text(argv[1]);
  if( pattern==0 || text==0 ) return;
  Answer answer = compare(db, pattern, text, known);
  if( answer==STOPPED ) sqlite3_result_error_code(context, SQLITE_INTERRUPT);
  else sqlite3_result_int(context, answer==YES);
}

/* Registers a function with a language of its own, which goes with the connection. */
static int add(sqlite3 *db, const char *name, int argc, Language language){
  Language *own = sqlite3_malloc64(sizeof language);
  if( own==0 ) return SQLITE_NOMEM;
  *own = language;
  note_plain(own);
  return sqlite3_create_function_v2(db, name, argc, SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS, own, match_function,
      0, 0, sqlite3_free);
}

int kimberlite_register_like(sqlite3 *db){
  const Language like = {'%', '_', 0, 0, 1, {0}}, glob = {'*', '?', '[', 0, 0, {0}};
  int rc = add(db, "like", 2, like);
  if( rc==SQLITE_OK ) rc = add(db, "like", 3, like);
  if( rc==SQLITE_OK ) rc = add(db, "glob", 2, glob);
  return rc;
}
