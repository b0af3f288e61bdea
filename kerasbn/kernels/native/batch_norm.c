/* Batch norm in training, in as few passes over memory as the formulas allow.

Forward pass, for a channel with m values x, where the pivot p is its first value and d = x - p:

    delta    = 1/m sum d
    variance = 1/m sum (d - delta)^2
    y        = (d - delta) gamma / sqrt(variance + epsilon) + beta

Backward pass, with x_hat = (d - delta) / sqrt(variance + epsilon):

    dbeta = sum dy    dgamma = sum dy x_hat
    dx    = gamma / sqrt(variance + epsilon) (dy - dbeta/m - x_hat dgamma/m)

Exactness. The pivot is subtracted first, so rounding errors scale with the channel's spread and not
with its mean. The sum for the variance needs the mean first. So the input is cut into blocks that
fit the cache. Each block is summed twice, first for its mean and then for the squares around that
mean. The formula of Chan, Golub and LeVeque (1979) merges the blocks' results in double precision:

    mean   = mean_a + (mean_b - mean_a) n_b / n
    spread = spread_a + spread_b + (mean_b - mean_a)^2 n_a n_b / n,     n = n_a + n_b

So x is read from memory once for the statistics and once for the output.

Speed. The processor adds 4 to 16 neighbouring float32 numbers with one instruction.
- Features last: neighbours are different channels. They are the lanes of a line, and each lane has
  its own sum. A row of a few channels would leave most of a register empty, so several rows form
  one line, and their lanes are merged at the end. Leftover rows that do not fill a line are handled
  one value at a time.
- Channels first: neighbours are values of one channel. They form a plane.

Determinism. The cuts depend only on the shape of the input. Parts run in any order and in any
thread, but their results are merged in a fixed order. Multiplications and additions are not fused
(-ffp-contract=off). So the result has the same bits in every run, with any number of threads and
with any instruction set. */

#include "batch_norm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"

enum {
    BLOCK = 64,          /* lines in a block */
    LINE = 64,           /* smallest number of values in a line of several rows */
    LANES_EACH = 512,    /* lanes in one part of a line */
    MOST_LANES = 1024,   /* limit for the last part, which has less than twice as many */
    PLANE_BLOCK = 4096,  /* largest number of values in a block of planes */
    PART = 8192,         /* values that make a part worth its overhead */
    MOST_PARTS = 32,     /* parts to aim for */
    ALONE = 50000        /* up to this many values, other threads do not help */
};

/* ---------------------------------------------------------------- cuts of the input */

typedef struct {
    int64_t repeat; /* rows in a line */
    int64_t lines, lanes;
    int64_t rest; /* leftover rows that do not fill a line */
    int64_t line_parts, lines_each, lane_parts;
} Lines;

typedef struct {
    int64_t parts, planes_each; /* of each channel */
} Planes;

static void partition(const Layout *layout, Lines *l, Planes *p) {
    if (layout->inner > 1) {
        l->repeat = 1;
        int64_t parts = MOST_PARTS / (layout->channels ? layout->channels : 1);
        parts = parts < layout->outer ? parts : layout->outer;
        parts = parts > 1 ? parts : 1;
        p->planes_each = (layout->outer + parts - 1) / parts;
        p->parts = p->planes_each ? (layout->outer + p->planes_each - 1) / p->planes_each : 0;
        return;
    }
    l->repeat = 1;
    if (layout->channels && layout->channels < LINE)
        while (l->repeat * layout->channels < LINE || l->repeat * layout->channels % 16)
            l->repeat++;
    l->lanes = l->repeat * layout->channels;
    l->lines = layout->outer / l->repeat;
    l->rest = layout->outer % l->repeat;
    l->lane_parts = l->lanes < 2 * LANES_EACH ? 1 : l->lanes / LANES_EACH;
    int64_t width = l->lane_parts > 1 ? LANES_EACH : l->lanes;
    int64_t blocks = width ? PART / (BLOCK * width) : 0;
    int64_t most = l->lines / (BLOCK * MOST_PARTS) + 1;
    blocks = blocks > most ? blocks : most;
    l->lines_each = BLOCK * (blocks > 1 ? blocks : 1);
    l->line_parts = (l->lines + l->lines_each - 1) / l->lines_each;
}

static int64_t lines_of_part(const Lines *l, int64_t part) {
    int64_t left = l->lines - part * l->lines_each;
    return left < l->lines_each ? left : l->lines_each;
}

/* One part of the lines. */
typedef struct {
    int64_t row;   /* number of the part among the parts of the lines */
    int64_t start; /* position of its first value in the tensor */
    int64_t lines, lane, lanes;
} Rectangle;

static Rectangle rectangle(const Lines *l, int64_t i) {
    Rectangle r;
    int64_t part = i % l->lane_parts;
    r.row = i / l->lane_parts;
    r.lane = part * LANES_EACH;
    r.lanes = part + 1 < l->lane_parts ? LANES_EACH : l->lanes - r.lane;
    r.lines = lines_of_part(l, r.row);
    r.start = r.row * l->lines_each * l->lanes + r.lane;
    return r;
}

/* One part of a channel's planes. */
typedef struct {
    int64_t channel, first_plane, planes, start, stride;
} Column;

static Column column(const Planes *p, const Layout *layout, int64_t i) {
    Column c;
    c.channel = i / p->parts;
    c.first_plane = i % p->parts * p->planes_each;
    int64_t left = layout->outer - c.first_plane;
    c.planes = left < p->planes_each ? left : p->planes_each;
    c.stride = layout->channels * layout->inner;
    c.start = c.first_plane * c.stride + c.channel * layout->inner;
    return c;
}

/* Iterator over the blocks of a column. A block is several small planes or part of a large one. */
typedef struct {
    const Column *column;
    int64_t inner;
    int64_t plane, value;           /* where the next block begins */
    int64_t start, planes, values;  /* this block */
} Blocks;

static Blocks blocks(const Layout *layout, const Column *c) {
    return (Blocks){.column = c, .inner = layout->inner};
}

static int next_block(Blocks *b) {
    int64_t left = b->column->planes - b->plane;
    if (left <= 0)
        return 0;
    b->start = b->column->start + b->plane * b->column->stride + b->value;
    if (b->inner <= PLANE_BLOCK) {
        int64_t several = PLANE_BLOCK / b->inner;
        b->planes = left < several ? left : several;
        b->values = b->inner;
        b->plane += b->planes;
        return 1;
    }
    b->planes = 1;
    b->values = b->inner - b->value < PLANE_BLOCK ? b->inner - b->value : PLANE_BLOCK;
    b->value += b->values;
    if (b->value == b->inner) {
        b->value = 0;
        b->plane++;
    }
    return 1;
}

/* ---------------------------------------------------------------- parts of the passes */

static void run(int64_t parts, void (*work)(void *, int64_t), void *context,
                const Layout *layout) {
    if (layout->outer * layout->channels * layout->inner > ALONE) {
        kerasbn_run(parts, work, context);
        return;
    }
    for (int64_t i = 0; i < parts; i++)
        work(context, i);
}

/* Merges the moments of n values into those of `before` other values, for each channel or lane. The
moments are the mean and the sum of squares around it. */
static inline void merge_all(int64_t channels, double before, double *mean, double *spread,
                             double n, const double *other_mean, const double *other_spread) {
    double share = n / (before + n), cross = before * share;
    for (int64_t c = 0; c < channels; c++) {
        double apart = other_mean[c] - mean[c];
        mean[c] += apart * share;
        spread[c] += other_spread[c] + apart * apart * cross;
    }
}

static inline void merge(double before, double *mean, double *spread, double n, double other_mean,
                         double other_spread) {
    merge_all(1, before, mean, spread, n, &other_mean, &other_spread);
}

/* Memory for intermediate results: two sums for each lane of each part, two sums for each channel,
and arrays with one value per lane. */
typedef struct {
    void *all, *lanes;
    double *first, *second, *total_first, *total_second;
} Room;

static int allocate(Room *room, const Layout *layout, const Lines *l, const Planes *p, int arrays,
                    size_t size) {
    int64_t channels = layout->channels;
    int64_t sums = layout->inner > 1 ? p->parts * channels : l->line_parts * l->lanes;
    int64_t lanes = l->lanes > channels ? l->lanes : channels;
    size_t doubles = 2 * (size_t)(sums + channels);
    room->all = malloc(doubles * sizeof(double) + (size_t)arrays * (size_t)lanes * size + 1);
    if (!room->all)
        return -1;
    room->first = room->all;
    room->second = room->first + sums;
    room->total_first = room->second + sums;
    room->total_second = room->total_first + channels;
    room->lanes = room->total_second + channels;
    return 0;
}

/* ---------------------------------------------------------------- types and instruction sets */

#define JOINED(a, b) a##_##b
#define SUFFIXED(a, b) JOINED(a, b)
#define NAMED(name) SUFFIXED(name, SUFFIX)

#define REAL float
#define SUFFIX float_base
#define BYTES 16
#define TILE 4
#include "arithmetic.h"
#include "passes.h"
#undef REAL
#undef SUFFIX
#define REAL double
#define SUFFIX double_base
#include "arithmetic.h"
#include "passes.h"
#undef REAL
#undef SUFFIX
#undef TILE
#undef BYTES

#ifdef __x86_64__
#define X86 1

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif
#define BYTES 32
#define TILE 4
#define REAL float
#define SUFFIX float_avx2
#include "arithmetic.h"
#include "passes.h"
#undef REAL
#undef SUFFIX
#define REAL double
#define SUFFIX double_avx2
#include "arithmetic.h"
#include "passes.h"
#undef REAL
#undef SUFFIX
#undef TILE
#undef BYTES
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f")
#endif
#define BYTES 64
#define TILE 4
#define REAL float
#define SUFFIX float_avx512
#include "arithmetic.h"
#include "passes.h"
#undef REAL
#undef SUFFIX
#define REAL double
#define SUFFIX double_avx512
#include "arithmetic.h"
#include "passes.h"
#undef REAL
#undef SUFFIX
#undef TILE
#undef BYTES
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif /* __x86_64__ */

typedef struct {
    const char *name;
    int (*forward[2])(const Forward *);
    int (*backward[2])(const Backward *);
} InstructionSet; /* the functions by Type */

#define INSTRUCTION_SET(name)                                                                      \
    {#name, {forward_float_##name, forward_double_##name},                                         \
     {backward_float_##name, backward_double_##name}}

static const InstructionSet sets[] = {
    INSTRUCTION_SET(base),
#ifdef X86
    INSTRUCTION_SET(avx2),
    INSTRUCTION_SET(avx512),
#endif
};

int kerasbn_instruction_sets(void) {
#ifdef X86
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") ? 3 : __builtin_cpu_supports("avx2") ? 2 : 1;
#else
    return 1;
#endif
}

static const InstructionSet *chosen = &sets[0];

__attribute__((constructor)) static void choose_instruction_set(void) {
    chosen = &sets[kerasbn_instruction_sets() - 1];
}

void kerasbn_use_instruction_set(int index) { chosen = &sets[index]; }

const char *kerasbn_instruction_set(void) { return chosen->name; }

int kerasbn_forward(const Forward *f) { return chosen->forward[f->type](f); }

int kerasbn_backward(const Backward *b) { return chosen->backward[b->type](b); }

int kerasbn_layout(int64_t rank, const int64_t *sizes, int64_t gamma_rank,
                   const int64_t *gamma_sizes, Layout *layout) {
    enum { OUTER, KEPT, INNER } place = OUTER;
    *layout = (Layout){1, 1, 1};
    if (gamma_rank > rank)
        return -1;
    for (int64_t a = 0; a < rank; a++) {
        int64_t b = a - (rank - gamma_rank), kept = b < 0 ? 1 : gamma_sizes[b];
        if (kept != 1) {
            if (kept != sizes[a] || place == INNER)
                return -1;
            place = KEPT;
            layout->channels *= sizes[a];
        } else if (sizes[a] != 1) {
            place = place == OUTER ? OUTER : INNER;
            *(place == OUTER ? &layout->outer : &layout->inner) *= sizes[a];
        }
    }
    return 0;
}

/* The loader looks for this text in the library file, and compares it with the sources. */
#ifndef KERASBN_SOURCES
#define KERASBN_SOURCES "unknown"
#endif
__attribute__((used)) const char kerasbn_sources[] = "kerasbn sources " KERASBN_SOURCES;
