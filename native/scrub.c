/*
 * Overwriting what freed memory still holds: kimberlite_scrub(secret), for after an erasure.
 *
 * free() leaves the bytes where they are until somebody is given them again. So this asks for memory, from large pieces
 * to small, until the heap has to grow, which is when nothing freed is left to be given; overwrites every piece; and
 * gives all of it back. Each heap of the allocator (glibc calls them arenas) can only be emptied by a thread that it
 * belongs to: threads of our own take over those of threads that have ended, together with their stacks, which are
 * overwritten too. Where the allocator is another one than glibc's, nothing is done, and 0 says so.
 */
#include "guard.h"

#include <string.h>
SQLITE_EXTENSION_INIT3

#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

enum {
  LARGEST = 64 << 10, SMALLEST = 24,
  EXACT = 1032,          /* up to here pieces of one size are kept for that size alone */
  KEPT = 16,             /* and so many of each, or fewer, by the thread that frees them */
  STACK_BYTES = 4 << 20, /* as the stacks of worker threads */
  STACK_MARGIN = 128 << 10,
  HEIRS = 8
};

typedef struct Piece Piece;
struct Piece {
  Piece *next;
};

static size_t heap_bytes(void){
  const struct mallinfo2 info = mallinfo2();
  return info.arena + info.hblkhd;
}

/* Adds a piece to what is taken, overwritten; returns where the next goes, and 0 if there is no memory. */
static Piece **take(Piece **end, size_t size){
  Piece *piece = malloc(size);
  if( piece==0 ) return 0;
  memset(piece, 0, size);
  *end = piece;
  return &piece->next;
}

/* Takes pieces of one size until the heap grows for one. A look costs as much as hundreds of pieces: one is taken soon,
** for a heap in which nothing is free, and then seldom. */
static Piece **take_all(Piece **end, size_t size){
  const size_t step = size>=4096 ? 16 : 256;
  const size_t before = heap_bytes();
  size_t look = 4;
  for(size_t count=1; ; count++){
    Piece **next = take(end, size);
    if( next==0 ) return end;
    end = next;
    if( count<look ) continue;
    if( heap_bytes()>before ) return end;
    look += look<step ? look : step;
  }
}

/* The first that is taken is the first to be freed. So what the thread keeps lies where something was free before; if it
** lay where the heap grew, the heap would stay as large, and grow again at the next erasure. */
static void empty_heap(void){
  Piece *taken = 0;
  Piece **end = &taken;
  for(size_t size=EXACT; size>=SMALLEST; size-=16){
    for(int i=0; i<KEPT; i++){
      Piece **next = take(end, size);
      if( next!=0 ) end = next;
    }
  }
  for(size_t size=LARGEST; size>EXACT; size/=2) end = take_all(end, size);
  for(size_t size=EXACT; size>=SMALLEST; size-=16) end = take_all(end, size);
  while( taken ){
    Piece *next = taken->next;
    free(taken);
    taken = next;
  }
}

static __attribute__((noinline)) void empty_stack(size_t bytes){
  volatile unsigned char *below = __builtin_alloca(bytes);
  for(size_t i=0; i<bytes; i++) below[i] = 0;
}

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_here = PTHREAD_COND_INITIALIZER;
static int begun;

/* Waits until all of them have a heap, so that none has another's; then one at a time, for each looks how heaps grow. */
static void *inherit(void *unused){
  void *mine = malloc(SMALLEST);
  pthread_mutex_lock(&turn);
  while( !begun ) pthread_cond_wait(&all_here, &turn);
  empty_stack(STACK_BYTES - STACK_MARGIN);
  empty_heap();
  pthread_mutex_unlock(&turn);
  free(mine);
  return unused;
}

/* Returns whether all of the threads could be started. */
static int empty_heirless(void){
  pthread_t heirs[HEIRS];
  pthread_attr_t attributes;
  int started = 0;
  if( pthread_attr_init(&attributes)!=0 ) return 0;
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  begun = 0;
  while( started<HEIRS && pthread_create(&heirs[started], &attributes, inherit, 0)==0 ) started++;
  pthread_mutex_lock(&turn);
  begun = 1;
  pthread_cond_broadcast(&all_here);
  pthread_mutex_unlock(&turn);
  for(int i=0; i<started; i++) pthread_join(heirs[i], 0);
  pthread_attr_destroy(&attributes);
  return started==HEIRS;
}

int kimberlite_scrub_memory(void){
  const int complete = empty_heirless();
  empty_stack(STACK_MARGIN);
  empty_heap();
  malloc_trim(0);
  return complete;
}

#else

int kimberlite_scrub_memory(void){
  return 0;
}

#endif
