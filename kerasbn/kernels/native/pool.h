/* A small thread pool that several operations may use at once. */

#ifndef KERASBN_POOL_H
#define KERASBN_POOL_H

#include <stdint.h>

/* Sets the number of threads that one operation may use, including its caller's. Default: 1. */
void kerasbn_set_threads(int);
int kerasbn_threads(void);

/* Calls work(context, i) for each i below count, in any order and in several threads, and returns
when all calls have returned. */
void kerasbn_run(int64_t count, void (*work)(void *context, int64_t i), void *context);

#endif
