/* A small thread pool that several operations may use at once.

The caller of kerasbn_run works on its job as well. It takes item after item and never waits for a
thread to wake up. Sleeping workers join when they wake. At the end, the caller waits only for items
that workers have already begun. So on a busy machine, a job only loses its helpers. Two operations
that run at once share the workers.

A job lives on the stack of its caller. A worker holds a job only between `users++` and `users--`.
Both happen under the lock. The caller takes the job off the list before it waits for `users` to
become 0.

After a fork, the child has no workers. The handlers below give it an empty pool. */

#include "pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

typedef struct Job {
    void (*work)(void *, int64_t);
    void *context;
    int64_t count;
    atomic_llong next; /* the first item that nobody has begun */
    atomic_int users;  /* workers that hold the job */
    int helpers;       /* largest number of workers that may hold the job */
    struct Job *following;
} Job;

/* Number of pauses before a thread goes to sleep, about 20 microseconds. The next part of an
operation usually follows within that time, and waking a thread takes longer. */
enum { PATIENCE = 1000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t posted = PTHREAD_COND_INITIALIZER, finished = PTHREAD_COND_INITIALIZER;
static Job *jobs;            /* guarded by lock */
static int workers;          /* threads of the pool; guarded by lock */
static atomic_int postings;  /* changes with every new job */
static atomic_int threads = 1;

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void work_on(Job *job) {
    for (;;) {
        int64_t i = atomic_fetch_add(&job->next, 1);
        if (i >= job->count)
            return;
        job->work(job->context, i);
    }
}

static Job *open_job(void) {
    for (Job *job = jobs; job; job = job->following)
        if (atomic_load(&job->next) < job->count && atomic_load(&job->users) < job->helpers)
            return job;
    return NULL;
}

static void *worker(void *unused) {
    pthread_mutex_lock(&lock);
    for (;;) {
        Job *job = open_job();
        if (!job) {
            int seen = atomic_load(&postings);
            pthread_mutex_unlock(&lock);
            for (int i = 0; i < PATIENCE && atomic_load(&postings) == seen; i++)
                pause_briefly();
            pthread_mutex_lock(&lock);
            if (atomic_load(&postings) == seen)
                pthread_cond_wait(&posted, &lock);
            continue;
        }
        atomic_fetch_add(&job->users, 1);
        pthread_mutex_unlock(&lock);
        work_on(job);
        pthread_mutex_lock(&lock);
        if (atomic_fetch_sub(&job->users, 1) == 1)
            pthread_cond_broadcast(&finished);
    }
    return unused;
}

/* Starts the missing workers. If the system refuses, there are fewer. The caller holds the lock. */
static void hire(int wanted) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals go to the program's own threads */
    for (; workers < wanted; workers++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, NULL))
            break;
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void kerasbn_run(int64_t count, void (*work)(void *, int64_t), void *context) {
    Job job = {.work = work, .context = context, .count = count};
    int helpers = atomic_load(&threads) - 1;
    job.helpers = helpers < count - 1 ? helpers : (int)(count - 1);
    if (job.helpers < 1) {
        work_on(&job);
        return;
    }
    pthread_mutex_lock(&lock);
    if (workers < helpers)
        hire(helpers);
    job.following = jobs;
    jobs = &job;
    atomic_fetch_add(&postings, 1);
    pthread_cond_broadcast(&posted);
    pthread_mutex_unlock(&lock);

    work_on(&job);

    pthread_mutex_lock(&lock);
    Job **place = &jobs;
    while (*place != &job)
        place = &(*place)->following;
    *place = job.following;
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < PATIENCE && atomic_load(&job.users); i++)
        pause_briefly();
    pthread_mutex_lock(&lock);
    while (atomic_load(&job.users))
        pthread_cond_wait(&finished, &lock);
    pthread_mutex_unlock(&lock);
}

void kerasbn_set_threads(int count) { atomic_store(&threads, count < 1 ? 1 : count); }

int kerasbn_threads(void) { return atomic_load(&threads); }

static void before_fork(void) { pthread_mutex_lock(&lock); }

static void after_fork_in_parent(void) { pthread_mutex_unlock(&lock); }

static void after_fork_in_child(void) {
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&posted, NULL);
    pthread_cond_init(&finished, NULL);
    jobs = NULL;
    workers = 0;
}

__attribute__((constructor)) static void prepare_for_fork(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}
