/* Tries the native kernel on random shapes, against sums in long double.

    native_fuzz SECONDS [SEED]

Checks the values, that all instruction sets and numbers of threads give the same bits, that the
output may overwrite the input, that several threads can call it at once, and that it works in a
child after a fork. Prints the number of shapes; exits with 1 at the first error. test_native.py
compiles and runs it, also with sanitizers. */

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "batch_norm.h"
#include "pool.h"

static uint64_t state;

static double uniform(void) { /* xorshift64* */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (double)((state * 2685821657736338717u) >> 11) / 9007199254740992.0;
}

static double normal(void) {
    double u = uniform() + 1e-300, v = uniform();
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

static int64_t size_up_to(double most) { return (int64_t)exp(uniform() * log(most)); }

/* One shape with its data. Arrays are allocated one by one, so that AddressSanitizer sees every
step beyond an end. */
typedef struct {
    Type type;
    Layout layout;
    void *x, *dy, *gamma, *beta;
} Problem;

enum { Y, MEAN, VARIANCE, PIVOT, DELTA, DX, DGAMMA, DBETA, RESULTS };

typedef struct {
    void *values[RESULTS];
} Result;

static size_t bytes(Type type) { return type == FLOAT32 ? 4 : 8; }

static int64_t count(const Problem *p, int result) {
    int64_t whole = p->layout.outer * p->layout.channels * p->layout.inner;
    return result == Y || result == DX ? whole : p->layout.channels;
}

static double get(Type type, const void *values, int64_t i) {
    return type == FLOAT32 ? (double)((const float *)values)[i] : ((const double *)values)[i];
}

static void set(Type type, void *values, int64_t i, double value) {
    if (type == FLOAT32)
        ((float *)values)[i] = (float)value;
    else
        ((double *)values)[i] = value;
}

static void *array(Type type, int64_t n) { return malloc((size_t)n * bytes(type)); }

static Problem draw(void) {
    static const int64_t favourites[] = {1, 2, 3, 5, 10, 16, 63, 64, 65, 127, 1000, 1025, 2000};
    Problem p;
    do {
        p.type = uniform() < 0.5 ? FLOAT32 : FLOAT64;
        p.layout.outer = uniform() < 0.03 ? 0 : size_up_to(5000);
        p.layout.channels = uniform() < 0.5 ? favourites[(int)(uniform() * 13)] : size_up_to(3000);
        p.layout.inner = uniform() < 0.5 ? 1 : size_up_to(10000);
    } while (count(&p, Y) > 400000);
    int64_t n = count(&p, Y), c = p.layout.channels;
    p.x = array(p.type, n);
    p.dy = array(p.type, n);
    p.gamma = array(p.type, c);
    p.beta = array(p.type, c);
    double offset = uniform() < 0.5 ? 1e4 : 1;
    double *mean = malloc((size_t)c * sizeof(double)), *scale = malloc((size_t)c * sizeof(double));
    for (int64_t k = 0; k < c; k++) {
        mean[k] = offset * normal();
        scale[k] = exp(2 * normal());
        set(p.type, p.gamma, k, 0.5 + uniform());
        set(p.type, p.beta, k, normal());
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t k = i / p.layout.inner % c;
        set(p.type, p.x, i, mean[k] + scale[k] * normal());
        set(p.type, p.dy, i, normal());
    }
    free(mean);
    free(scale);
    return p;
}

static const double EPSILON = 1e-3;

static Result run(const Problem *p, int overwrite) {
    Result r;
    for (int k = 0; k < RESULTS; k++)
        r.values[k] = array(p->type, count(p, k));
    size_t whole = (size_t)count(p, Y) * bytes(p->type);
    const void *x = p->x, *dy = p->dy;
    if (overwrite) {
        memcpy(r.values[Y], p->x, whole);
        memcpy(r.values[DX], p->dy, whole);
        x = r.values[Y];
        dy = r.values[DX];
    }
    Forward f = {p->type,         p->layout,          x,               p->gamma,
                 p->beta,         EPSILON,            r.values[Y],     r.values[MEAN],
                 r.values[VARIANCE], r.values[PIVOT], r.values[DELTA]};
    Backward b = {p->type,         p->layout,          dy,      p->x,         p->gamma,
                  r.values[PIVOT], r.values[DELTA],    r.values[VARIANCE],    EPSILON,
                  r.values[DX],    r.values[DGAMMA],   r.values[DBETA]};
    if (kerasbn_forward(&f) || kerasbn_backward(&b)) {
        printf("no memory\n");
        exit(1);
    }
    return r;
}

static void discard(Result *r) {
    for (int k = 0; k < RESULTS; k++)
        free(r->values[k]);
}

static int same(const Problem *p, const Result *a, const Result *b) {
    for (int k = 0; k < RESULTS; k++)
        if (memcmp(a->values[k], b->values[k], (size_t)count(p, k) * bytes(p->type)))
            return 0;
    return 1;
}

static void fail(const Problem *p, const char *what) {
    printf("%s, type %d, shape (%lld, %lld, %lld)\n", what, (int)p->type,
           (long long)p->layout.outer, (long long)p->layout.channels, (long long)p->layout.inner);
    exit(1);
}

/* Checks one value against an error that is relative to the largest term in it. */
static void check(const Problem *p, const char *what, double actual, long double desired,
                  long double terms) {
    long double tolerance = (p->type == FLOAT32 ? 2e-5L : 1e-13L);
    if (!(fabsl((long double)actual - desired) <= tolerance * terms))
        fail(p, what);
}

static void check_channel(const Problem *p, const Result *r, int64_t k) {
    const Layout *l = &p->layout;
    int64_t m = l->outer * l->inner;
    long double sum = 0, square = 0, s1 = 0, s2 = 0, largest = 0, steepest = 0;
#define EACH(i)                                                                                    \
    for (int64_t o = 0; o < l->outer; o++)                                                         \
        for (int64_t i = (o * l->channels + k) * l->inner, end = i + l->inner; i < end; i++)
    long double first = m ? (long double)get(p->type, p->x, k * l->inner) : 0;
    EACH(i) sum += (long double)get(p->type, p->x, i) - first;
    long double mean = m ? first + sum / m : 0;
    EACH(i) {
        long double d = (long double)get(p->type, p->x, i) - mean;
        square += d * d;
    }
    long double variance = m ? square / m : 0, std = sqrtl(variance + (long double)EPSILON);
    EACH(i) {
        long double x_hat = ((long double)get(p->type, p->x, i) - mean) / std;
        long double dy = (long double)get(p->type, p->dy, i);
        s1 += dy;
        s2 += dy * x_hat;
        largest = fmaxl(largest, fabsl(x_hat));
        steepest = fmaxl(steepest, fabsl(dy));
    }
    long double gamma = (long double)get(p->type, p->gamma, k);
    long double beta = (long double)get(p->type, p->beta, k);
    long double root = sqrtl((long double)m) + 1;
    check(p, "mean", get(p->type, r->values[MEAN], k), mean, fabsl(mean) + std);
    check(p, "variance", get(p->type, r->values[VARIANCE], k), variance, std * std);
    check(p, "dbeta", get(p->type, r->values[DBETA], k), s1, root * steepest);
    check(p, "dgamma", get(p->type, r->values[DGAMMA], k), s2, root * steepest * (largest + 1));
    EACH(i) {
        long double x_hat = ((long double)get(p->type, p->x, i) - mean) / std;
        long double dy = (long double)get(p->type, p->dy, i);
        check(p, "y", get(p->type, r->values[Y], i), gamma * x_hat + beta,
              gamma * largest + fabsl(beta) + 1);
        check(p, "dx", get(p->type, r->values[DX], i), gamma / std * (dy - (s1 + x_hat * s2) / m),
              gamma / std * steepest * (largest + 1));
    }
}

typedef struct {
    const Problem *problem;
    const Result *expected;
    int right;
} Caller;

static void *call_often(void *context) {
    Caller *caller = context;
    caller->right = 1;
    for (int i = 0; i < 5; i++) {
        Result again = run(caller->problem, 0);
        caller->right &= same(caller->problem, &again, caller->expected);
        discard(&again);
    }
    return NULL;
}

static void check_concurrency(const Problem *p, const Result *expected) {
    pthread_t threads[3];
    Caller callers[3];
    for (int i = 0; i < 3; i++) {
        callers[i] = (Caller){p, expected, 0};
        pthread_create(&threads[i], NULL, call_often, &callers[i]);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        if (!callers[i].right)
            fail(p, "other bits when several threads call");
    }
}

static void check_fork(const Problem *p, const Result *expected) {
    pid_t child = fork();
    if (!child) {
        alarm(20); /* ends a child that hangs */
        Result again = run(p, 0);
        _exit(same(p, &again, expected) ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status)
        fail(p, "wrong or hanging after a fork");
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 5;
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    int forks = argc <= 3; /* ThreadSanitizer allows no threads after a fork */
    int sets = kerasbn_instruction_sets(), shapes = 0;
    time_t begin = time(NULL);
    for (; difftime(time(NULL), begin) < seconds; shapes++) {
        Problem p = draw();
        kerasbn_use_instruction_set(sets - 1);
        kerasbn_set_threads(2);
        Result expected = run(&p, 0);
        for (int64_t k = 0; k < p.layout.channels; k++)
            check_channel(&p, &expected, k);
        for (int set = 0; set < sets; set++)
            for (int threads = 1; threads <= 3; threads++) {
                kerasbn_use_instruction_set(set);
                kerasbn_set_threads(threads);
                Result again = run(&p, threads == 2);
                if (!same(&p, &again, &expected))
                    fail(&p, "other bits with another instruction set or number of threads");
                discard(&again);
            }
        if (shapes % 10 == 0) {
            check_concurrency(&p, &expected);
            if (forks)
                check_fork(&p, &expected);
        }
        discard(&expected);
        free(p.x);
        free(p.dy);
        free(p.gamma);
        free(p.beta);
    }
    printf("%d shapes\n", shapes);
    return 0;
}
