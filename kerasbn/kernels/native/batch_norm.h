/* Batch norm in training: the forward pass and its gradient.

A tensor is treated as an array of shape (outer, channels, inner) in row-major order. With features
last, inner is 1. With channels first, outer is the batch size and inner the number of pixels. Each
channel is normalized over its m = outer * inner values.

These functions do not depend on TensorFlow or JAX. Several threads may call them at once. */

#ifndef KERASBN_BATCH_NORM_H
#define KERASBN_BATCH_NORM_H

#include <stdint.h>

typedef enum { FLOAT32, FLOAT64 } Type;

typedef struct {
    int64_t outer, channels, inner;
} Layout;

/* Finds the layout from the sizes of x and of gamma. gamma broadcasts to x: it has size 1 on the
reduced axes, and may lack leading ones. Returns 0, or -1 if the sizes don't fit. */
int kerasbn_layout(int64_t rank, const int64_t *sizes, int64_t gamma_rank,
                   const int64_t *gamma_sizes, Layout *layout);

/* Error messages of the operations for both frameworks. */
#define WRONG_LAYOUT                                                                               \
    "gamma must broadcast to x: it must have the sizes of x on one or several neighbouring axes, " \
    "and size 1 on all others"
#define WRONG_SIZES                                                                                \
    "dy must have the size of x; beta, the statistics and the moving averages must have that of "  \
    "gamma"
#define NO_MEMORY "no memory for the intermediate results of batch norm"

/* All pointers are to values of this Type. x and y hold the whole tensor, and the others hold one
value per channel. y may be x. The batch mean is pivot + delta. The two numbers are kept apart,
because their float32 sum drops digits if the mean is large. */
typedef struct {
    Type type;
    Layout layout;
    const void *x, *gamma, *beta;
    double epsilon;
    void *y, *mean, *variance, *pivot, *delta;
} Forward;

/* dy, x and dx hold the whole tensor, and the others hold one value per channel. dx may be dy or
x. */
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

/* The kernel uses the best instruction set of the processor. These functions return the number of
instruction sets that the processor has and the name of the one in use, and choose one by number.
Number 0 is the one that every processor has. Only tests choose. */
int kerasbn_instruction_sets(void);
const char *kerasbn_instruction_set(void);
void kerasbn_use_instruction_set(int);

#endif
