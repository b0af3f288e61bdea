/* The two operations for JAX, as functions that XLA calls.

    kerasbn_xla_forward(x, gamma, beta, epsilon) -> y, mean, variance, pivot, delta
    kerasbn_xla_backward(dy, x, gamma, pivot, delta, variance, epsilon) -> dx, dgamma, dbeta

tensorflow.c describes their arguments and results.

XLA's foreign function interface is a versioned C interface. This file declares the few structures
that it needs, so it builds without XLA's headers. XLA appends fields to its structures and never
moves one. */

#include <stddef.h>
#include <stdint.h>

#include "batch_norm.h"

enum { XLA_F32 = 11, XLA_F64 = 12 };
enum { XLA_INVALID_ARGUMENT = 3, XLA_RESOURCE_EXHAUSTED = 8 };
enum { XLA_METADATA = 1 }; /* the extension that asks for a handler's version */

typedef struct Extension {
    size_t struct_size;
    int type;
    struct Extension *next;
} Extension;

typedef struct {
    size_t struct_size;
    Extension *extensions;
    int major, minor;
} Version;

typedef struct {
    size_t struct_size;
    Version version;
    uint32_t traits;
} Metadata;

typedef struct {
    Extension base;
    Metadata *metadata;
} MetadataExtension;

typedef struct XLA_FFI_Error XLA_FFI_Error;

typedef struct {
    size_t struct_size;
    Extension *extensions;
    const char *message;
    int code;
} ErrorArguments;

typedef struct {
    size_t struct_size;
    Extension *extensions;
    Version version;
    void *internal;
    XLA_FFI_Error *(*create_error)(ErrorArguments *);
} Api;

typedef struct {
    size_t struct_size;
    Extension *extensions;
    int dtype;
    void *data;
    int64_t rank;
    int64_t *sizes;
} Buffer;

typedef struct {
    size_t struct_size;
    Extension *extensions;
    int64_t count;
    int *types;
    Buffer **buffers;
} Buffers;

typedef struct {
    size_t struct_size;
    Extension *extensions;
    const Api *api;
    void *context;
    int stage;
    Buffers inputs, outputs;
} CallFrame;

/* Answers with XLA's own version, because all versions have the parts that this file uses. */
static int asks_for_version(CallFrame *call) {
    if (!call->extensions || call->extensions->type != XLA_METADATA)
        return 0;
    Metadata *metadata = ((MetadataExtension *)call->extensions)->metadata;
    metadata->version.major = call->api->version.major;
    metadata->version.minor = call->api->version.minor;
    metadata->traits = 0;
    return 1;
}

static XLA_FFI_Error *error(CallFrame *call, int code, const char *message) {
    ErrorArguments arguments = {sizeof arguments, NULL, message, code};
    return call->api->create_error(&arguments);
}

static int64_t size_of(const Buffer *buffer) {
    int64_t size = 1;
    for (int64_t a = 0; a < buffer->rank; a++)
        size *= buffer->sizes[a];
    return size;
}

/* Whether the inputs from `first` to `last` have as many values as the input `like`. */
static int agree(CallFrame *call, int first, int last, int like) {
    for (int i = first; i <= last; i++)
        if (size_of(call->inputs.buffers[i]) != size_of(call->inputs.buffers[like]))
            return 0;
    return 1;
}

static Type type_of(const Buffer *x) { return x->dtype == XLA_F32 ? FLOAT32 : FLOAT64; }

static int layout_of(const Buffer *x, const Buffer *gamma, Layout *layout) {
    return (x->dtype == XLA_F32 || x->dtype == XLA_F64) &&
           kerasbn_layout(x->rank, x->sizes, gamma->rank, gamma->sizes, layout) == 0;
}

static double value_of(const Buffer *scalar) {
    return scalar->dtype == XLA_F32 ? (double)*(float *)scalar->data : *(double *)scalar->data;
}

XLA_FFI_Error *kerasbn_xla_forward(CallFrame *call) {
    if (asks_for_version(call))
        return NULL;
    Buffer **in = call->inputs.buffers, **out = call->outputs.buffers;
    Forward f = {type_of(in[0])};
    if (!layout_of(in[0], in[1], &f.layout))
        return error(call, XLA_INVALID_ARGUMENT, WRONG_LAYOUT);
    if (!agree(call, 2, 2, 1))
        return error(call, XLA_INVALID_ARGUMENT, WRONG_SIZES);
    f.x = in[0]->data;
    f.gamma = in[1]->data;
    f.beta = in[2]->data;
    f.epsilon = value_of(in[3]);
    f.y = out[0]->data;
    f.mean = out[1]->data;
    f.variance = out[2]->data;
    f.pivot = out[3]->data;
    f.delta = out[4]->data;
    return kerasbn_forward(&f) ? error(call, XLA_RESOURCE_EXHAUSTED, NO_MEMORY) : NULL;
}

XLA_FFI_Error *kerasbn_xla_backward(CallFrame *call) {
    if (asks_for_version(call))
        return NULL;
    Buffer **in = call->inputs.buffers, **out = call->outputs.buffers;
    Backward b = {type_of(in[1])};
    if (!layout_of(in[1], in[2], &b.layout))
        return error(call, XLA_INVALID_ARGUMENT, WRONG_LAYOUT);
    if (!agree(call, 0, 0, 1) || !agree(call, 3, 5, 2))
        return error(call, XLA_INVALID_ARGUMENT, WRONG_SIZES);
    b.dy = in[0]->data;
    b.x = in[1]->data;
    b.gamma = in[2]->data;
    b.pivot = in[3]->data;
    b.delta = in[4]->data;
    b.variance = in[5]->data;
    b.epsilon = value_of(in[6]);
    b.dx = out[0]->data;
    b.dgamma = out[1]->data;
    b.dbeta = out[2]->data;
    return kerasbn_backward(&b) ? error(call, XLA_RESOURCE_EXHAUSTED, NO_MEMORY) : NULL;
}
