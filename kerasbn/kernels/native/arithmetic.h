/* The arithmetic of batch norm for one type and one instruction set.

batch_norm.c explains the algorithm and includes this file once for each combination, with

    REAL          float or double
    NAMED(name)   the name with a suffix for this combination
    BYTES         size of a vector register
    TILE          vectors to work on at a time: few enough for the registers of every processor

BYTES and TILE do not change results, because each sum adds the same values in the same order. */

#define vector NAMED(vector)
typedef REAL vector __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
#define WIDTH ((int64_t)(BYTES / sizeof(REAL)))
#define AT(pointer) (*(vector *)(pointer))
#define FROM(pointer) (*(const vector *)(pointer))

/* ---------------------------------------------------------------- lines: features last */

/* Mean of x - pivot and sum of squares around it in each lane, over a block of lines. `count` is
the number of vectors of lanes. There are two passes, and the second finds its data in the cache. */
static inline __attribute__((always_inline)) void NAMED(tile_moments)(
    int count, const REAL *x, int64_t lines, int64_t stride, const REAL *pivot, REAL *mean,
    REAL *spread) {
    vector p[TILE], m[TILE], s[TILE];
    for (int v = 0; v < count; v++) {
        p[v] = FROM(pivot + v * WIDTH);
        m[v] = (vector){0};
        s[v] = (vector){0};
    }
    for (int64_t i = 0; i < lines; i++)
        for (int v = 0; v < count; v++)
            m[v] += FROM(x + i * stride + v * WIDTH) - p[v];
    for (int v = 0; v < count; v++)
        m[v] = m[v] * ((REAL)1 / (REAL)lines);
    for (int64_t i = 0; i < lines; i++)
        for (int v = 0; v < count; v++) {
            vector d = FROM(x + i * stride + v * WIDTH) - p[v] - m[v];
            s[v] += d * d;
        }
    for (int v = 0; v < count; v++) {
        AT(mean + v * WIDTH) = m[v];
        AT(spread + v * WIDTH) = s[v];
    }
}

/* Sums of dy and of dy (x - pivot - delta) in each lane, over a block of lines. */
static inline __attribute__((always_inline)) void NAMED(tile_products)(
    int count, const REAL *dy, const REAL *x, int64_t lines, int64_t stride, const REAL *pivot,
    const REAL *delta, REAL *sum, REAL *product) {
    vector p[TILE], q[TILE], s[TILE], t[TILE];
    for (int v = 0; v < count; v++) {
        p[v] = FROM(pivot + v * WIDTH);
        q[v] = FROM(delta + v * WIDTH);
        s[v] = (vector){0};
        t[v] = (vector){0};
    }
    for (int64_t i = 0; i < lines; i++)
        for (int v = 0; v < count; v++) {
            vector g = FROM(dy + i * stride + v * WIDTH);
            s[v] += g;
            t[v] += g * (FROM(x + i * stride + v * WIDTH) - p[v] - q[v]);
        }
    for (int v = 0; v < count; v++) {
        AT(sum + v * WIDTH) = s[v];
        AT(product + v * WIDTH) = t[v];
    }
}

/* Runs `call(vectors)` for tiles that cover all lanes. `lane` is the first lane of a tile. The last
vector may overlap the one before it, because both compute the same values. */
#define FOR_EACH_TILE(lanes, call)                                                                 \
    do {                                                                                           \
        int64_t lane = 0;                                                                          \
        for (; lane + TILE * WIDTH <= (lanes); lane += TILE * WIDTH)                               \
            call(TILE);                                                                            \
        for (; lane + 2 * WIDTH <= (lanes); lane += 2 * WIDTH)                                     \
            call(2);                                                                               \
        for (; lane < (lanes); lane += WIDTH) {                                                    \
            lane = lane + WIDTH <= (lanes) ? lane : (lanes) - WIDTH;                               \
            call(1);                                                                               \
        }                                                                                          \
    } while (0)

/* Adds the moments of some lines to `mean` and `spread`, which have one value per lane. */
static void NAMED(add_line_moments)(const REAL *x, int64_t lines, int64_t stride, int64_t lanes,
                                    const REAL *pivot, REAL *scratch, double *mean,
                                    double *spread) {
    REAL *block_mean = scratch, *block_spread = scratch + lanes;
    for (int64_t begun = 0; begun < lines; begun += BLOCK) {
        int64_t n = lines - begun < BLOCK ? lines - begun : BLOCK;
        const REAL *block = x + begun * stride;
#define MOMENTS(count)                                                                             \
    NAMED(tile_moments)                                                                            \
    (count, block + lane, n, stride, pivot + lane, block_mean + lane, block_spread + lane)
        FOR_EACH_TILE(lanes, MOMENTS);
#undef MOMENTS
        double share = (double)n / (double)(begun + n), cross = (double)begun * share;
        for (int64_t l = 0; l < lanes; l++) {
            double apart = (double)block_mean[l] - mean[l];
            mean[l] += apart * share;
            spread[l] += (double)block_spread[l] + apart * apart * cross;
        }
    }
}

static void NAMED(add_line_products)(const REAL *dy, const REAL *x, int64_t lines, int64_t stride,
                                     int64_t lanes, const REAL *pivot, const REAL *delta,
                                     REAL *scratch, double *sum, double *product) {
    REAL *block_sum = scratch, *block_product = scratch + lanes;
    for (int64_t begun = 0; begun < lines; begun += BLOCK) {
        int64_t n = lines - begun < BLOCK ? lines - begun : BLOCK;
        int64_t start = begun * stride;
#define PRODUCTS(count)                                                                            \
    NAMED(tile_products)                                                                           \
    (count, dy + start + lane, x + start + lane, n, stride, pivot + lane, delta + lane,            \
     block_sum + lane, block_product + lane)
        FOR_EACH_TILE(lanes, PRODUCTS);
#undef PRODUCTS
        for (int64_t l = 0; l < lanes; l++) {
            sum[l] += (double)block_sum[l];
            product[l] += (double)block_product[l];
        }
    }
}

/* y = ((x - pivot) - delta) slope + beta. The last vector may overlap the one before it. It is
computed first and stored last, because y may be x. */
static void NAMED(normalize_lines)(const REAL *x, REAL *y, int64_t lines, int64_t stride,
                                   int64_t lanes, const REAL *pivot, const REAL *delta,
                                   const REAL *slope, const REAL *beta) {
    int64_t whole = lanes / WIDTH * WIDTH, end = lanes - WIDTH;
    for (int64_t i = 0; i < lines; i++, x += stride, y += stride) {
#define Y(l) ((FROM(x + (l)) - FROM(pivot + (l)) - FROM(delta + (l))) * FROM(slope + (l)) +        \
              FROM(beta + (l)))
        vector last = {0};
        if (whole < lanes)
            last = Y(end);
        for (int64_t l = 0; l < whole; l += WIDTH)
            AT(y + l) = Y(l);
        if (whole < lanes)
            AT(y + end) = last;
#undef Y
    }
}

/* dx = dy by_dy + ((x - pivot) - delta) by_x + constant. */
static void NAMED(differentiate_lines)(const REAL *dy, const REAL *x, REAL *dx, int64_t lines,
                                       int64_t stride, int64_t lanes, const REAL *pivot,
                                       const REAL *delta, const REAL *by_dy, const REAL *by_x,
                                       const REAL *constant) {
    int64_t whole = lanes / WIDTH * WIDTH, end = lanes - WIDTH;
    for (int64_t i = 0; i < lines; i++, dy += stride, x += stride, dx += stride) {
#define DX(l) (FROM(dy + (l)) * FROM(by_dy + (l)) +                                                \
               (FROM(x + (l)) - FROM(pivot + (l)) - FROM(delta + (l))) * FROM(by_x + (l)) +        \
               FROM(constant + (l)))
        vector last = {0};
        if (whole < lanes)
            last = DX(end);
        for (int64_t l = 0; l < whole; l += WIDTH)
            AT(dx + l) = DX(l);
        if (whole < lanes)
            AT(dx + end) = last;
#undef DX
    }
}

/* ------------------------------------------------------------- planes: channels first */

/* Sums over planes use 64 bytes of vectors on every processor, in as many registers as needed. So
their order is the same everywhere. */
#define GROUP (64 / BYTES)
#define SPAN (GROUP * WIDTH)

static inline double NAMED(total)(const vector *v) {
    REAL total = 0;
    for (int g = 0; g < GROUP; g++)
        for (int l = 0; l < WIDTH; l++)
            total += v[g][l];
    return (double)total;
}

/* Adds the moments of one channel's values: n in each of some planes that are `stride` apart. */
static void NAMED(add_plane_moments)(const REAL *x, int64_t planes, int64_t stride, int64_t n,
                                     REAL pivot, double before, double *mean, double *spread) {
    vector sum[GROUP] = {{0}}, square[GROUP] = {{0}};
    double rest = 0, square_rest = 0; /* double: may hold a whole block of small planes */
    for (int64_t o = 0; o < planes; o++) {
        const REAL *plane = x + o * stride;
        int64_t i = 0;
        for (; i + SPAN <= n; i += SPAN)
            for (int g = 0; g < GROUP; g++)
                sum[g] += FROM(plane + i + g * WIDTH) - pivot;
        for (; i < n; i++)
            rest += (double)(plane[i] - pivot);
    }
    double values = (double)(planes * n);
    REAL m = (REAL)((NAMED(total)(sum) + rest) / values);
    for (int64_t o = 0; o < planes; o++) {
        const REAL *plane = x + o * stride;
        int64_t i = 0;
        for (; i + SPAN <= n; i += SPAN)
            for (int g = 0; g < GROUP; g++) {
                vector d = FROM(plane + i + g * WIDTH) - pivot - m;
                square[g] += d * d;
            }
        for (; i < n; i++) {
            REAL d = plane[i] - pivot - m;
            square_rest += (double)(d * d);
        }
    }
    merge(before, mean, spread, values, (double)m, NAMED(total)(square) + square_rest);
}

static void NAMED(add_plane_products)(const REAL *dy, const REAL *x, int64_t planes, int64_t stride,
                                      int64_t n, REAL pivot, REAL delta, double *sum,
                                      double *product) {
    vector s[GROUP] = {{0}}, t[GROUP] = {{0}};
    double s_rest = 0, t_rest = 0;
    for (int64_t o = 0; o < planes; o++) {
        const REAL *g = dy + o * stride, *plane = x + o * stride;
        int64_t i = 0;
        for (; i + SPAN <= n; i += SPAN)
            for (int v = 0; v < GROUP; v++) {
                vector upstream = FROM(g + i + v * WIDTH);
                s[v] += upstream;
                t[v] += upstream * (FROM(plane + i + v * WIDTH) - pivot - delta);
            }
        for (; i < n; i++) {
            s_rest += (double)g[i];
            t_rest += (double)(g[i] * (plane[i] - pivot - delta));
        }
    }
    *sum += NAMED(total)(s) + s_rest;
    *product += NAMED(total)(t) + t_rest;
}

static void NAMED(normalize_plane)(const REAL *x, REAL *y, int64_t n, REAL pivot, REAL delta,
                                   REAL slope, REAL beta) {
    int64_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        AT(y + i) = (FROM(x + i) - pivot - delta) * slope + beta;
    for (; i < n; i++)
        y[i] = (x[i] - pivot - delta) * slope + beta;
}

static void NAMED(differentiate_plane)(const REAL *dy, const REAL *x, REAL *dx, int64_t n,
                                       REAL pivot, REAL delta, REAL by_dy, REAL by_x,
                                       REAL constant) {
    int64_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        AT(dx + i) = FROM(dy + i) * by_dy + (FROM(x + i) - pivot - delta) * by_x + constant;
    for (; i < n; i++)
        dx[i] = dy[i] * by_dy + (x[i] - pivot - delta) * by_x + constant;
}
