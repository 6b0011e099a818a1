/*
 * The watchdog: one thread for the process, started with the first deadline.
 *
 * It polls every 2 ms while a deadline is armed or was within the last second, and sleeps on a condition otherwise,
 * so that arming and disarming cost a short lock and no system call while it is awake.
 *
 * It stops what has run longest, too, while the process holds more memory than it may: a sort or a group has no bound of
 * its own. What the allocator has given out is asked for only when the process's resident pages are beyond the limit, and
 * never under `watch_lock`.
 *
 * Invariants: the list of armed guards and their deadlines belong to `watch_lock`; an interrupt is sent under it, so
 * none comes after kimberlite_disarm returned and none reaches a connection that closed (closing disarms).
 * Faults survived: clocks that jump (CLOCK_MONOTONIC), connections of several threads, closing while armed.
 */
#include "guard.h"
SQLITE_EXTENSION_INIT3

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
#include <malloc.h>
#define TELLS_MEMORY 1
#endif

/* Memory is looked at every LOOK_POLLS while something has run for LONG_NS: sooner nothing can have taken much. */
enum { POLL_NS = 2000000, LINGER_NS = 1000000000, LONG_NS = 50000000, LOOK_POLLS = 8 };

static pthread_mutex_t watch_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t watch_wake = PTHREAD_COND_INITIALIZER;
static Guard *armed;
static int64_t last_armed_ns;
static int watching, asleep;
static sqlite3_int64 memory_limit;

static int64_t monotonic_ns(void){
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec*1000000000+t.tv_nsec;
}

void kimberlite_limit_memory(sqlite3_int64 bytes){
  if( bytes>0 ) __atomic_store_n(&memory_limit, bytes, __ATOMIC_RELAXED);
}

#ifdef TELLS_MEMORY
static int64_t resident_bytes(void){
  char text[64];
  long long pages = 0;
  int file = open("/proc/self/statm", O_RDONLY|O_CLOEXEC);
  if( file<0 ) return 0;
  ssize_t length = read(file, text, sizeof text-1);
  close(file);
  if( length<=0 ) return 0;
  text[length] = 0;
  return sscanf(text, "%*s %lld", &pages)==1 ? pages*sysconf(_SC_PAGESIZE) : 0;
}

/* What was freed stays resident: it is given back before it is counted. */
static int short_of_memory(void){
  int64_t limit = __atomic_load_n(&memory_limit, __ATOMIC_RELAXED);
  if( limit<=0 || resident_bytes()<=limit ) return 0;
  struct mallinfo2 heap = mallinfo2();
  if( (int64_t)(heap.uordblks+heap.hblkhd)>limit ) return 1;
  if( (int64_t)heap.fordblks>limit/2 ) malloc_trim(0);
  return 0;
}
#else
static int short_of_memory(void){ return 0; }
#endif

/* Of what is armed, what has run longest, if that is long. */
static Guard *longest(int64_t now){
  Guard *found = 0;
  for(Guard *g=armed; g; g=g->next){
    if( now-g->armed_ns>=LONG_NS && (found==0 || g->armed_ns<found->armed_ns) ) found = g;
  }
  return found;
}

static void stop(Guard *g, int why){
  if( g->expired==IN_TIME ) __atomic_store_n(&g->expired, why, __ATOMIC_RELAXED);
  sqlite3_interrupt(g->db);
}

/* Interrupts at every poll, not once: SQLite forgets an interrupt that comes between two statements. */
static void *watch(void *unused){
  const struct timespec poll = {0, POLL_NS};
  int polls = 0;
  pthread_mutex_lock(&watch_lock);
  for(;;){
    int64_t now = monotonic_ns();
    asleep = armed==0 && now-last_armed_ns>LINGER_NS;
    while( asleep ) pthread_cond_wait(&watch_wake, &watch_lock);
    int look = ++polls%LOOK_POLLS==0 && longest(now)!=0;
    pthread_mutex_unlock(&watch_lock);
    int starved = look && short_of_memory();
    pthread_mutex_lock(&watch_lock);
    now = monotonic_ns();
    Guard *victim = starved ? longest(now) : 0;
    /* From now on it is as one whose deadline has passed. One at a time: what it held is free only when it has ended. */
    if( victim && victim->expired==IN_TIME ){ victim->deadline_ns = now; stop(victim, STARVED); }
    for(Guard *g=armed; g; g=g->next) if( now>=g->deadline_ns ) stop(g, LATE);
    pthread_mutex_unlock(&watch_lock);
    nanosleep(&poll, 0);
    pthread_mutex_lock(&watch_lock);
  }
  return unused;
}

/* The host's signals stay with the host's threads. */
static int start_watching(void){
  sigset_t all, before;
  pthread_t thread;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(&thread, 0, watch, 0);
  pthread_sigmask(SIG_SETMASK, &before, 0);
  if( failed ) return 0;
  pthread_detach(thread);
  return 1;
}

int kimberlite_arm(Guard *g, sqlite3_int64 deadline_ms){
  pthread_mutex_lock(&watch_lock);
  if( !watching ) watching = start_watching();
  __atomic_store_n(&g->expired, IN_TIME, __ATOMIC_RELAXED);
  if( deadline_ms>0 && watching ){
    last_armed_ns = monotonic_ns();
    g->armed_ns = last_armed_ns;
    g->deadline_ns = last_armed_ns+deadline_ms*1000000;
    g->next = armed;
    g->link = &armed;
    if( armed ) armed->link = &g->next;
    armed = g;
    if( asleep ){ asleep = 0; pthread_cond_signal(&watch_wake); }
  }
  int ok = watching;
  pthread_mutex_unlock(&watch_lock);
  return ok;
}

int kimberlite_disarm(Guard *g){
  pthread_mutex_lock(&watch_lock);
  if( g->link ){
    *g->link = g->next;
    if( g->next ) g->next->link = g->link;
    g->link = 0;
  }
  int expired = g->expired;
  __atomic_store_n(&g->expired, IN_TIME, __ATOMIC_RELAXED);
  pthread_mutex_unlock(&watch_lock);
  return expired;
}
