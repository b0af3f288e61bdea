/* Batch norm in training: the forward pass and its gradient.

A tensor is seen as (outer, channels, inner) in row-major order. Features last: inner is 1.
Channels first: outer is the batch, inner the number of pixels. Each channel is normalized over
the m = outer * inner values that it has.

These functions know nothing of TensorFlow and JAX. They may run in several threads at once. */

#ifndef KERASBN_BATCH_NORM_H
#define KERASBN_BATCH_NORM_H

#include <stdint.h>

typedef enum { FLOAT32, FLOAT64 } Type;

typedef struct {
    int64_t outer, channels, inner;
} Layout;

/* Finds the layout from the sizes of x and of gamma, which has size 1 on the axes that are reduced.
Returns 0, or -1 if they don't fit. */
int kerasbn_layout(int64_t rank, const int64_t *sizes, const int64_t *kept, Layout *layout);

/* Messages of both frameworks' operations. */
#define WRONG_LAYOUT                                                                               \
    "gamma must have the rank of x, the sizes of x on one or several neighbouring axes, and size " \
    "1 on all others"
#define WRONG_SIZES "dy must have the size of x; beta and the statistics must have that of gamma"
#define NO_MEMORY "no memory for the intermediate results of batch norm"

/* All pointers are to values of the same Type; x, y and dy, dx hold the whole tensor, the others
one value per channel. y may be x. The batch mean is pivot + delta, kept as two numbers because a
float32 sum of them loses the digits that a large mean pushes out. */
typedef struct {
    Type type;
    Layout layout;
    const void *x, *gamma, *beta;
    double epsilon;
    void *y, *mean, *variance, *pivot, *delta;
} Forward;

/* dx may be dy or x. */
typedef struct {
    Type type;
    Layout layout;
    const void *dy, *x, *gamma, *pivot, *delta, *variance;
    double epsilon;
    void *dx, *dgamma, *dbeta;
} Backward;

/* Each returns 0, or -1 if there is no memory for its intermediate results. */
int kerasbn_forward(const Forward *);
int kerasbn_backward(const Backward *);

/* The best instruction set that this processor has is used. For tests: how many it has, the name
of the one in use, and a choice by number, from 0, the one that every processor has. */
int kerasbn_instruction_sets(void);
const char *kerasbn_instruction_set(void);
void kerasbn_use_instruction_set(int);

#endif
