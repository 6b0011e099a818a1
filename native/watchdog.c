/*
 * The watchdog: one thread for the process, started with the first deadline.
 *
 * It polls every 2 ms while a deadline is armed or was within the last second, and sleeps on a condition otherwise,
 * so that arming and disarming cost a short lock and no system call while it is awake.
 *
 * Invariants: the list of armed guards and their deadlines belong to `watch_lock`; an interrupt is sent under it, so
 * none comes after kimberlite_disarm returned and none reaches a connection that closed (closing disarms).
 * Faults survived: clocks that jump (CLOCK_MONOTONIC), connections of several threads, closing while armed.
 */
#include "guard.h"
SQLITE_EXTENSION_INIT3

#include <pthread.h>
#include <signal.h>
#include <time.h>

enum { POLL_NS = 2000000, LINGER_NS = 1000000000 };

static pthread_mutex_t watch_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t watch_wake = PTHREAD_COND_INITIALIZER;
static Guard *armed;
static int64_t last_armed_ns;
static int watching, asleep;

static int64_t monotonic_ns(void){
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec*1000000000+t.tv_nsec;
}

/* Interrupts at every poll, not once: SQLite forgets an interrupt that comes between two statements. */
static void *watch(void *unused){
  const struct timespec poll = {0, POLL_NS};
  pthread_mutex_lock(&watch_lock);
  for(;;){
    int64_t now = monotonic_ns();
    asleep = armed==0 && now-last_armed_ns>LINGER_NS;
    while( asleep ) pthread_cond_wait(&watch_wake, &watch_lock);
    for(Guard *g=armed; g; g=g->next){
      if( now<g->deadline_ns ) continue;
      __atomic_store_n(&g->expired, 1, __ATOMIC_RELAXED);
      sqlite3_interrupt(g->db);
    }
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
  __atomic_store_n(&g->expired, 0, __ATOMIC_RELAXED);
  if( deadline_ms>0 && watching ){
    last_armed_ns = monotonic_ns();
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
  __atomic_store_n(&g->expired, 0, __ATOMIC_RELAXED);
  pthread_mutex_unlock(&watch_lock);
  return expired;
}
