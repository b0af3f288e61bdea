/* The forward and backward passes for one type and one instruction set; see batch_norm.c.

Each pass reads the input twice, first for the sums and then for the output. Both times, the pool
runs the parts. In between, the caller adds up the sums of the parts in a fixed order. */

/* State that the parts of one operation share. Arrays have one value per lane, or for planes, per
channel. `first` and `second` hold the two sums of each part: mean and sum of squares, or the sums
of dy and of dy (x - mean). */
typedef struct {
    Layout layout;
    Lines lines;
    Planes planes;
    const REAL *dy, *x;
    REAL *out;
    const REAL *pivot, *delta, *factor, *slope, *constant;
    double *first, *second;
} NAMED(Work);

/* Repeats values for the rows of a line, so that each lane has its channel's value. */
static const REAL *NAMED(repeated)(const REAL *values, int64_t channels, int64_t repeat,
                                   REAL **room) {
    if (repeat == 1)
        return values;
    REAL *lanes = *room;
    int64_t filled = channels, all = repeat * channels;
    memcpy(lanes, values, (size_t)channels * sizeof(REAL));
    for (; filled < all; filled *= 2) {
        int64_t more = filled < all - filled ? filled : all - filled;
        memcpy(lanes + filled, lanes, (size_t)more * sizeof(REAL));
    }
    *room += all;
    return lanes;
}

/* ---------------------------------------------------------------- parts of lines */

static void NAMED(line_moments)(void *context, int64_t i) {
    NAMED(Work) *w = context;
    Rectangle r = rectangle(&w->lines, i);
    double *mean = w->first + r.row * w->lines.lanes + r.lane;
    double *spread = w->second + r.row * w->lines.lanes + r.lane;
    REAL scratch[2 * MOST_LANES];
    memset(mean, 0, (size_t)r.lanes * sizeof(double));
    memset(spread, 0, (size_t)r.lanes * sizeof(double));
    NAMED(add_line_moments)
    (w->x + r.start, r.lines, w->lines.lanes, r.lanes, w->pivot + r.lane, scratch, mean, spread);
}

static void NAMED(line_products)(void *context, int64_t i) {
    NAMED(Work) *w = context;
    Rectangle r = rectangle(&w->lines, i);
    double *sum = w->first + r.row * w->lines.lanes + r.lane;
    double *product = w->second + r.row * w->lines.lanes + r.lane;
    REAL scratch[2 * MOST_LANES];
    memset(sum, 0, (size_t)r.lanes * sizeof(double));
    memset(product, 0, (size_t)r.lanes * sizeof(double));
    NAMED(add_line_products)
    (w->dy + r.start, w->x + r.start, r.lines, w->lines.lanes, r.lanes, w->pivot + r.lane,
     w->delta + r.lane, scratch, sum, product);
}

static void NAMED(line_output)(void *context, int64_t i) {
    NAMED(Work) *w = context;
    Rectangle r = rectangle(&w->lines, i);
    NAMED(normalize_lines)
    (w->x + r.start, w->out + r.start, r.lines, w->lines.lanes, r.lanes, w->pivot + r.lane,
     w->delta + r.lane, w->slope + r.lane, w->constant + r.lane);
}

static void NAMED(line_gradient)(void *context, int64_t i) {
    NAMED(Work) *w = context;
    Rectangle r = rectangle(&w->lines, i);
    NAMED(differentiate_lines)
    (w->dy + r.start, w->x + r.start, w->out + r.start, r.lines, w->lines.lanes, r.lanes,
     w->pivot + r.lane, w->delta + r.lane, w->factor + r.lane, w->slope + r.lane,
     w->constant + r.lane);
}

/* ---------------------------------------------------------------- parts of planes */

static void NAMED(plane_moments)(void *context, int64_t i) {
    NAMED(Work) *w = context;
    Column c = column(&w->planes, &w->layout, i);
    double seen = 0, mean = 0, spread = 0;
    for (Blocks b = blocks(&w->layout, &c); next_block(&b); seen += (double)(b.planes * b.values))
        NAMED(add_plane_moments)
        (w->x + b.start, b.planes, c.stride, b.values, w->pivot[c.channel], seen, &mean, &spread);
    w->first[i] = mean;
    w->second[i] = spread;
}

static void NAMED(plane_products)(void *context, int64_t i) {
    NAMED(Work) *w = context;
    Column c = column(&w->planes, &w->layout, i);
    double sum = 0, product = 0;
    for (Blocks b = blocks(&w->layout, &c); next_block(&b);)
        NAMED(add_plane_products)
        (w->dy + b.start, w->x + b.start, b.planes, c.stride, b.values, w->pivot[c.channel],
         w->delta[c.channel], &sum, &product);
    w->first[i] = sum;
    w->second[i] = product;
}

static void NAMED(plane_output)(void *context, int64_t i) {
    NAMED(Work) *w = context;
    Column c = column(&w->planes, &w->layout, i);
    for (int64_t o = 0; o < c.planes; o++) {
        int64_t start = c.start + o * c.stride;
        NAMED(normalize_plane)
        (w->x + start, w->out + start, w->layout.inner, w->pivot[c.channel], w->delta[c.channel],
         w->slope[c.channel], w->constant[c.channel]);
    }
}

static void NAMED(plane_gradient)(void *context, int64_t i) {
    NAMED(Work) *w = context;
    Column c = column(&w->planes, &w->layout, i);
    for (int64_t o = 0; o < c.planes; o++) {
        int64_t start = c.start + o * c.stride;
        NAMED(differentiate_plane)
        (w->dy + start, w->x + start, w->out + start, w->layout.inner, w->pivot[c.channel],
         w->delta[c.channel], w->factor[c.channel], w->slope[c.channel], w->constant[c.channel]);
    }
}

/* ---------------------------------------------------------------- whole passes */

/* Mean of x - pivot and sum of squares around it, for each channel. */
static void NAMED(moments)(NAMED(Work) *w, const REAL *pivot, double *mean, double *spread) {
    int64_t channels = w->layout.channels;
    memset(mean, 0, (size_t)channels * sizeof(double));
    memset(spread, 0, (size_t)channels * sizeof(double));
    if (w->layout.inner > 1) {
        run(w->planes.parts * channels, NAMED(plane_moments), w, &w->layout);
        for (int64_t i = 0; i < w->planes.parts * channels; i++) {
            Column c = column(&w->planes, &w->layout, i);
            double before = (double)(c.first_plane * w->layout.inner);
            merge(before, mean + c.channel, spread + c.channel,
                  (double)(c.planes * w->layout.inner), w->first[i], w->second[i]);
        }
        return;
    }
    const Lines *l = &w->lines;
    run(l->line_parts * l->lane_parts, NAMED(line_moments), w, &w->layout);
    for (int64_t part = 1; part < l->line_parts; part++) {
        double before = (double)(part * l->lines_each), n = (double)lines_of_part(l, part);
        merge_all(l->lanes, before, w->first, w->second, n, w->first + part * l->lanes,
                  w->second + part * l->lanes);
    }
    if (l->lines)
        for (int64_t k = 0; k < l->repeat; k++)
            merge_all(channels, (double)(k * l->lines), mean, spread, (double)l->lines,
                      w->first + k * channels, w->second + k * channels);
    if (l->rest)
        for (int64_t c = 0; c < channels; c++)
            NAMED(add_plane_moments)
            (w->x + l->lines * l->lanes + c, l->rest, channels, 1, pivot[c],
             (double)(l->lines * l->repeat), mean + c, spread + c);
}

/* Sums of dy and of dy (x - mean), for each channel. */
static void NAMED(products)(NAMED(Work) *w, const REAL *pivot, const REAL *delta, double *sum,
                            double *product) {
    int64_t channels = w->layout.channels;
    memset(sum, 0, (size_t)channels * sizeof(double));
    memset(product, 0, (size_t)channels * sizeof(double));
    if (w->layout.inner > 1) {
        run(w->planes.parts * channels, NAMED(plane_products), w, &w->layout);
        for (int64_t i = 0; i < w->planes.parts * channels; i++) {
            sum[i / w->planes.parts] += w->first[i];
            product[i / w->planes.parts] += w->second[i];
        }
        return;
    }
    const Lines *l = &w->lines;
    run(l->line_parts * l->lane_parts, NAMED(line_products), w, &w->layout);
    for (int64_t part = 1; part < l->line_parts; part++)
        for (int64_t lane = 0; lane < l->lanes; lane++) {
            w->first[lane] += w->first[part * l->lanes + lane];
            w->second[lane] += w->second[part * l->lanes + lane];
        }
    if (l->lines)
        for (int64_t k = 0; k < l->repeat; k++)
            for (int64_t c = 0; c < channels; c++) {
                sum[c] += w->first[k * channels + c];
                product[c] += w->second[k * channels + c];
            }
    if (l->rest) {
        int64_t start = l->lines * l->lanes;
        for (int64_t c = 0; c < channels; c++)
            NAMED(add_plane_products)
            (w->dy + start + c, w->x + start + c, l->rest, channels, 1, pivot[c], delta[c],
             sum + c, product + c);
    }
}

static int NAMED(forward)(const Forward *f) {
    NAMED(Work) w = {.layout = f->layout, .x = f->x, .out = f->y};
    int64_t channels = f->layout.channels;
    double m = (double)(f->layout.outer * f->layout.inner);
    const REAL *x = f->x, *gamma = f->gamma, *beta = f->beta;
    REAL *mean = f->mean, *variance = f->variance, *pivot = f->pivot, *delta = f->delta;
    partition(&f->layout, &w.lines, &w.planes);
    Room room;
    if (allocate(&room, &w.layout, &w.lines, &w.planes, 5, sizeof(REAL)))
        return -1;
    w.first = room.first;
    w.second = room.second;
    REAL *lanes = room.lanes, *slope = lanes;
    lanes += channels;
    for (int64_t c = 0; c < channels; c++) /* copied, because y may overwrite it */
        pivot[c] = m > 0 ? x[c * f->layout.inner] : 0;
    w.pivot = NAMED(repeated)(pivot, channels, w.lines.repeat, &lanes);
    NAMED(moments)(&w, pivot, room.total_first, room.total_second);
    for (int64_t c = 0; c < channels; c++) {
        delta[c] = (REAL)room.total_first[c];
        mean[c] = (REAL)((double)pivot[c] + room.total_first[c]);
        variance[c] = (REAL)(m > 0 ? room.total_second[c] / m : 0);
        slope[c] = (REAL)((double)gamma[c] / sqrt((double)variance[c] + f->epsilon));
    }
    w.delta = NAMED(repeated)(delta, channels, w.lines.repeat, &lanes);
    w.slope = NAMED(repeated)(slope, channels, w.lines.repeat, &lanes);
    w.constant = NAMED(repeated)(beta, channels, w.lines.repeat, &lanes);
    if (f->layout.inner > 1)
        run(w.planes.parts * channels, NAMED(plane_output), &w, &w.layout);
    else {
        run(w.lines.line_parts * w.lines.lane_parts, NAMED(line_output), &w, &w.layout);
        for (int64_t r = w.lines.lines * w.lines.repeat; r < f->layout.outer; r++)
            for (int64_t c = 0; c < channels; c++)
                NAMED(normalize_plane)
                (x + r * channels + c, w.out + r * channels + c, 1, pivot[c], delta[c], slope[c],
                 beta[c]);
    }
    free(room.all);
    return 0;
}

static int NAMED(backward)(const Backward *b) {
    NAMED(Work) w = {.layout = b->layout, .dy = b->dy, .x = b->x, .out = b->dx};
    int64_t channels = b->layout.channels;
    double m = (double)(b->layout.outer * b->layout.inner);
    const REAL *gamma = b->gamma, *pivot = b->pivot, *delta = b->delta, *variance = b->variance;
    REAL *dgamma = b->dgamma, *dbeta = b->dbeta;
    partition(&b->layout, &w.lines, &w.planes);
    Room room;
    if (allocate(&room, &w.layout, &w.lines, &w.planes, 8, sizeof(REAL)))
        return -1;
    w.first = room.first;
    w.second = room.second;
    REAL *lanes = room.lanes, *factor = lanes, *slope = lanes + channels,
         *constant = lanes + 2 * channels;
    lanes += 3 * channels;
    w.pivot = NAMED(repeated)(pivot, channels, w.lines.repeat, &lanes);
    w.delta = NAMED(repeated)(delta, channels, w.lines.repeat, &lanes);
    NAMED(products)(&w, pivot, delta, room.total_first, room.total_second);
    for (int64_t c = 0; c < channels; c++) {
        double inverse = 1 / sqrt((double)variance[c] + b->epsilon);
        double multiplier = (double)gamma[c] * inverse;
        double x_hat_dy = room.total_second[c] * inverse;
        dbeta[c] = (REAL)room.total_first[c];
        dgamma[c] = (REAL)x_hat_dy;
        factor[c] = (REAL)multiplier;
        slope[c] = (REAL)(m > 0 ? -multiplier * inverse * x_hat_dy / m : 0);
        constant[c] = (REAL)(m > 0 ? -multiplier * room.total_first[c] / m : 0);
    }
    w.factor = NAMED(repeated)(factor, channels, w.lines.repeat, &lanes);
    w.slope = NAMED(repeated)(slope, channels, w.lines.repeat, &lanes);
    w.constant = NAMED(repeated)(constant, channels, w.lines.repeat, &lanes);
    if (b->layout.inner > 1)
        run(w.planes.parts * channels, NAMED(plane_gradient), &w, &w.layout);
    else {
        run(w.lines.line_parts * w.lines.lane_parts, NAMED(line_gradient), &w, &w.layout);
        for (int64_t r = w.lines.lines * w.lines.repeat; r < b->layout.outer; r++)
            for (int64_t c = 0; c < channels; c++)
                NAMED(differentiate_plane)
                (w.dy + r * channels + c, w.x + r * channels + c, w.out + r * channels + c, 1,
                 pivot[c], delta[c], factor[c], slope[c], constant[c]);
    }
    free(room.all);
    return 0;
}

#undef vector
#undef GROUP
#undef SPAN
#undef WIDTH
#undef AT
#undef FROM
#undef FOR_EACH_TILE
