/* The three operations for TensorFlow, registered when TensorFlow loads this library.

    KerasbnForward(x, gamma, beta, epsilon) -> y, mean, variance, pivot, delta, count
    KerasbnBackward(dy, x, gamma, pivot, delta, variance, epsilon) -> dx, dgamma, dbeta
    KerasbnMove(moving_mean, moving_variance, mean, variance, keep, rate) -> moved_mean,
        moved_variance

gamma broadcasts to x, and has size 1 on the reduced axes. y and dx have the shape of x. epsilon and
count are scalars. count is the number m of values in each channel. All other arguments and results
have the shape of gamma. batch_norm.h explains their meanings.

KerasbnMove is moved = average * keep + value * rate, for both moving averages. In a small layer, the
six operations that it replaces take longer than their arithmetic. keep and rate are scalars. A
result has the shape of its average.

TensorFlow's C interface for kernels is small and stable. This file declares the functions that it
needs and includes no headers of TensorFlow, so one binary serves several versions. It looks the
functions up in libraries that are already loaded. It loads none, because TensorFlow's own library
would bring thousands of symbols into the process. If a function is missing, nothing is
registered. */

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

#include "batch_norm.h"

typedef struct TF_KernelBuilder TF_KernelBuilder;
typedef struct TF_OpDefinitionBuilder TF_OpDefinitionBuilder;
typedef struct TF_OpKernelConstruction TF_OpKernelConstruction;
typedef struct TF_OpKernelContext TF_OpKernelContext;
typedef struct TF_ShapeHandle TF_ShapeHandle;
typedef struct TF_ShapeInferenceContext TF_ShapeInferenceContext;
typedef struct TF_Status TF_Status;
typedef struct TF_Tensor TF_Tensor;

enum { TF_FLOAT = 1, TF_DOUBLE = 2 };                        /* TF_DataType */
enum { TF_INVALID_ARGUMENT = 3, TF_RESOURCE_EXHAUSTED = 8 }; /* TF_Code */

/* (result, name, arguments) of each function */
#define FUNCTIONS(F)                                                                               \
    F(TF_Status *, TF_NewStatus, (void))                                                           \
    F(void, TF_DeleteStatus, (TF_Status *))                                                        \
    F(void, TF_SetStatus, (TF_Status *, int code, const char *message))                            \
    F(int, TF_GetCode, (const TF_Status *))                                                        \
    F(TF_OpDefinitionBuilder *, TF_NewOpDefinitionBuilder, (const char *name))                     \
    F(void, TF_OpDefinitionBuilderAddAttr, (TF_OpDefinitionBuilder *, const char *))               \
    F(void, TF_OpDefinitionBuilderAddInput, (TF_OpDefinitionBuilder *, const char *))              \
    F(void, TF_OpDefinitionBuilderAddOutput, (TF_OpDefinitionBuilder *, const char *))             \
    F(void, TF_OpDefinitionBuilderSetShapeInferenceFunction,                                       \
      (TF_OpDefinitionBuilder *, void (*)(TF_ShapeInferenceContext *, TF_Status *)))               \
    F(void, TF_RegisterOpDefinition, (TF_OpDefinitionBuilder *, TF_Status *))                      \
    F(TF_ShapeHandle *, TF_NewShapeHandle, (void))                                                 \
    F(void, TF_DeleteShapeHandle, (TF_ShapeHandle *))                                              \
    F(void, TF_ShapeInferenceContextGetInput,                                                      \
      (TF_ShapeInferenceContext *, int, TF_ShapeHandle *, TF_Status *))                            \
    F(void, TF_ShapeInferenceContextSetOutput,                                                     \
      (TF_ShapeInferenceContext *, int, TF_ShapeHandle *, TF_Status *))                            \
    F(TF_KernelBuilder *, TF_NewKernelBuilder,                                                     \
      (const char *op, const char *device, void *(*create)(TF_OpKernelConstruction *),             \
       void (*compute)(void *, TF_OpKernelContext *), void (*destroy)(void *)))                    \
    F(void, TF_KernelBuilder_TypeConstraint,                                                       \
      (TF_KernelBuilder *, const char *attribute, int type, TF_Status *))                          \
    F(void, TF_RegisterKernelBuilder, (const char *name, TF_KernelBuilder *, TF_Status *))         \
    F(void, TF_GetInput, (TF_OpKernelContext *, int, TF_Tensor **, TF_Status *))                   \
    F(void, TF_OpKernelContext_Failure, (TF_OpKernelContext *, TF_Status *))                       \
    F(TF_Tensor *, TF_ForwardInputOrAllocateOutput,                                                \
      (TF_OpKernelContext *, const int *candidates, int, int output, const int64_t *sizes, int,    \
       int *forwarded, TF_Status *))                                                               \
    F(void, TF_DeleteTensor, (TF_Tensor *))                                                        \
    F(int, TF_NumDims, (const TF_Tensor *))                                                        \
    F(int64_t, TF_Dim, (const TF_Tensor *, int))                                                   \
    F(int64_t, TF_TensorElementCount, (const TF_Tensor *))                                         \
    F(void *, TF_TensorData, (const TF_Tensor *))

#define DECLARE(result, name, arguments) static result(*name) arguments;
FUNCTIONS(DECLARE)
#undef DECLARE

static int find_functions(void) {
#ifdef __APPLE__
    void *library = dlopen("libtensorflow_framework.2.dylib", RTLD_NOLOAD | RTLD_LAZY);
#else
    void *library = dlopen("libtensorflow_framework.so.2", RTLD_NOLOAD | RTLD_LAZY);
#endif
    if (!library) /* TensorFlow may be linked into the program */
        library = RTLD_DEFAULT;
#define FIND(result, name, arguments)                                                              \
    *(void **)&name = dlsym(library, #name);                                                       \
    if (!name)                                                                                     \
        return 0;
    FUNCTIONS(FIND)
#undef FIND
    return 1;
}

/* ---------------------------------------------------------------- the kernels */

enum { MOST_INPUTS = 7, MOST_OUTPUTS = 6, MOST_DIMENSIONS = 254 };

/* One call of an operation: its tensors, and its first error. */
typedef struct {
    TF_OpKernelContext *context;
    TF_Status *status;
    TF_Tensor *inputs[MOST_INPUTS], *outputs[MOST_OUTPUTS];
} Call;

static int failed(const Call *call) { return TF_GetCode(call->status) != 0; }

static void fail(Call *call, int code, const char *message) {
    if (!failed(call))
        TF_SetStatus(call->status, code, message);
}

static const void *input(Call *call, int i) {
    if (failed(call))
        return NULL;
    TF_GetInput(call->context, i, &call->inputs[i], call->status);
    return failed(call) ? NULL : TF_TensorData(call->inputs[i]);
}

/* Writes the sizes of a tensor's axes and returns its rank. TensorFlow's limit on the rank is 254. */
static int sizes_of(const TF_Tensor *tensor, int64_t *sizes) {
    int rank = TF_NumDims(tensor);
    for (int a = 0; a < rank; a++)
        sizes[a] = TF_Dim(tensor, a);
    return rank;
}

/* An output with the shape of the input `like`. It may take the memory of a `reusable` input that
has no other user. */
static void *output(Call *call, int i, int like, const int *reusable, int count) {
    if (failed(call))
        return NULL;
    int64_t sizes[MOST_DIMENSIONS];
    int rank = sizes_of(call->inputs[like], sizes), forwarded;
    call->outputs[i] = TF_ForwardInputOrAllocateOutput(call->context, reusable, count, i, sizes,
                                                       rank, &forwarded, call->status);
    return failed(call) ? NULL : TF_TensorData(call->outputs[i]);
}

static void *statistic(Call *call, int i, int like) {
    /* TensorFlow wants a list of candidates, even an empty one. */
    return output(call, i, like, (const int[]){0}, 0);
}

/* The layout, from the shapes of x and gamma. */
static Layout layout_of(Call *call, int x, int gamma) {
    Layout layout = {1, 1, 1};
    if (failed(call))
        return layout;
    int64_t sizes[2][MOST_DIMENSIONS];
    int ranks[2] = {sizes_of(call->inputs[x], sizes[0]), sizes_of(call->inputs[gamma], sizes[1])};
    if (kerasbn_layout(ranks[0], sizes[0], ranks[1], sizes[1], &layout))
        fail(call, TF_INVALID_ARGUMENT, WRONG_LAYOUT);
    return layout;
}

static void check_sizes(Call *call, int first, int last, int like) {
    for (int i = first; i <= last && !failed(call); i++)
        if (TF_TensorElementCount(call->inputs[i]) != TF_TensorElementCount(call->inputs[like]))
            fail(call, TF_INVALID_ARGUMENT, WRONG_SIZES);
}

static void begin(Call *call, TF_OpKernelContext *context) {
    *call = (Call){.context = context, .status = TF_NewStatus()};
}

static void end(Call *call) {
    if (failed(call))
        TF_OpKernelContext_Failure(call->context, call->status);
    for (int i = 0; i < MOST_INPUTS; i++)
        if (call->inputs[i])
            TF_DeleteTensor(call->inputs[i]);
    for (int i = 0; i < MOST_OUTPUTS; i++)
        if (call->outputs[i])
            TF_DeleteTensor(call->outputs[i]);
    TF_DeleteStatus(call->status);
}

static double as_double(Type type, const void *value) {
    return type == FLOAT32 ? (double)*(const float *)value : *(const double *)value;
}

static void from_double(Type type, void *to, double value) {
    if (type == FLOAT32)
        *(float *)to = (float)value;
    else
        *(double *)to = value;
}

static void compute_forward(Type type, TF_OpKernelContext *context) {
    Call call;
    begin(&call, context);
    Forward f = {.type = type};
    f.x = input(&call, 0);
    f.gamma = input(&call, 1);
    f.beta = input(&call, 2);
    const void *epsilon = input(&call, 3);
    f.layout = layout_of(&call, 0, 1);
    check_sizes(&call, 2, 2, 1);
    f.y = output(&call, 0, 0, (const int[]){0}, 0);
    f.mean = statistic(&call, 1, 1);
    f.variance = statistic(&call, 2, 1);
    f.pivot = statistic(&call, 3, 1);
    f.delta = statistic(&call, 4, 1);
    void *count = statistic(&call, 5, 3);
    if (!failed(&call)) {
        f.epsilon = as_double(type, epsilon);
        from_double(type, count, (double)(f.layout.outer * f.layout.inner));
        if (kerasbn_forward(&f))
            fail(&call, TF_RESOURCE_EXHAUSTED, NO_MEMORY);
    }
    end(&call);
}

static void compute_backward(Type type, TF_OpKernelContext *context) {
    Call call;
    begin(&call, context);
    Backward b = {.type = type};
    b.x = input(&call, 1);
    b.gamma = input(&call, 2);
    b.layout = layout_of(&call, 1, 2);
    /* Allocate dx before reading dy. input() holds a reference to dy, and TensorFlow reuses memory
    only if nobody else holds one. */
    b.dx = output(&call, 0, 1, (const int[]){0}, 1);
    b.dy = input(&call, 0);
    b.pivot = input(&call, 3);
    b.delta = input(&call, 4);
    b.variance = input(&call, 5);
    const void *epsilon = input(&call, 6);
    check_sizes(&call, 0, 0, 1);
    check_sizes(&call, 3, 5, 2);
    b.dgamma = statistic(&call, 1, 2);
    b.dbeta = statistic(&call, 2, 2);
    if (!failed(&call)) {
        b.epsilon = as_double(type, epsilon);
        if (kerasbn_backward(&b))
            fail(&call, TF_RESOURCE_EXHAUSTED, NO_MEMORY);
    }
    end(&call);
}

#define MOVE(REAL)                                                                                 \
    for (int64_t c = 0; c < channels; c++)                                                         \
        ((REAL *)moved)[c] = ((const REAL *)average)[c] * *(const REAL *)keep +                    \
                             ((const REAL *)value)[c] * *(const REAL *)rate

static void compute_move(Type type, TF_OpKernelContext *context) {
    Call call;
    begin(&call, context);
    const void *keep = input(&call, 4), *rate = input(&call, 5);
    for (int i = 0; i < 2; i++) {
        const void *average = input(&call, i), *value = input(&call, 2 + i);
        check_sizes(&call, 2 + i, 2 + i, i);
        void *moved = statistic(&call, i, i);
        int64_t channels = failed(&call) ? 0 : TF_TensorElementCount(call.inputs[i]);
        if (type == FLOAT32)
            MOVE(float);
        else
            MOVE(double);
    }
    end(&call);
}

static void forward_float(void *kernel, TF_OpKernelContext *c) { compute_forward(FLOAT32, c); }
static void forward_double(void *kernel, TF_OpKernelContext *c) { compute_forward(FLOAT64, c); }
static void backward_float(void *kernel, TF_OpKernelContext *c) { compute_backward(FLOAT32, c); }
static void backward_double(void *kernel, TF_OpKernelContext *c) { compute_backward(FLOAT64, c); }
static void move_float(void *kernel, TF_OpKernelContext *c) { compute_move(FLOAT32, c); }
static void move_double(void *kernel, TF_OpKernelContext *c) { compute_move(FLOAT64, c); }

/* ---------------------------------------------------------------- registration */

static void set_shape(TF_ShapeInferenceContext *c, TF_Status *status, int input, int first,
                      int last) {
    TF_ShapeHandle *shape = TF_NewShapeHandle();
    TF_ShapeInferenceContextGetInput(c, input, shape, status);
    for (int output = first; output <= last && !TF_GetCode(status); output++)
        TF_ShapeInferenceContextSetOutput(c, output, shape, status);
    TF_DeleteShapeHandle(shape);
}

static void forward_shapes(TF_ShapeInferenceContext *c, TF_Status *status) {
    set_shape(c, status, 0, 0, 0);
    if (!TF_GetCode(status))
        set_shape(c, status, 1, 1, 4);
    if (!TF_GetCode(status))
        set_shape(c, status, 3, 5, 5);
}

static void backward_shapes(TF_ShapeInferenceContext *c, TF_Status *status) {
    set_shape(c, status, 1, 0, 0);
    if (!TF_GetCode(status))
        set_shape(c, status, 2, 1, 2);
}

static void move_shapes(TF_ShapeInferenceContext *c, TF_Status *status) {
    set_shape(c, status, 0, 0, 0);
    if (!TF_GetCode(status))
        set_shape(c, status, 1, 1, 1);
}

static void *create(TF_OpKernelConstruction *construction) { return NULL; }

static void destroy(void *kernel) {}

typedef struct {
    const char *name, *inputs[MOST_INPUTS + 1], *outputs[MOST_OUTPUTS + 1];
    void (*shapes)(TF_ShapeInferenceContext *, TF_Status *);
    void (*compute[2])(void *, TF_OpKernelContext *); /* by Type */
} Operation;

static const Operation operations[] = {
    {"KerasbnForward",
     {"x: T", "gamma: T", "beta: T", "epsilon: T"},
     {"y: T", "mean: T", "variance: T", "pivot: T", "delta: T", "count: T"},
     forward_shapes,
     {forward_float, forward_double}},
    {"KerasbnBackward",
     {"dy: T", "x: T", "gamma: T", "pivot: T", "delta: T", "variance: T", "epsilon: T"},
     {"dx: T", "dgamma: T", "dbeta: T"},
     backward_shapes,
     {backward_float, backward_double}},
    {"KerasbnMove",
     {"moving_mean: T", "moving_variance: T", "mean: T", "variance: T", "keep: T", "rate: T"},
     {"moved_mean: T", "moved_variance: T"},
     move_shapes,
     {move_float, move_double}},
};

static void register_operation(const Operation *operation, TF_Status *status) {
    TF_OpDefinitionBuilder *definition = TF_NewOpDefinitionBuilder(operation->name);
    TF_OpDefinitionBuilderAddAttr(definition, "T: {float, double}");
    for (const char *const *text = operation->inputs; *text; text++)
        TF_OpDefinitionBuilderAddInput(definition, *text);
    for (const char *const *text = operation->outputs; *text; text++)
        TF_OpDefinitionBuilderAddOutput(definition, *text);
    TF_OpDefinitionBuilderSetShapeInferenceFunction(definition, operation->shapes);
    TF_RegisterOpDefinition(definition, status); /* takes the builder */
    for (int type = FLOAT32; type <= FLOAT64 && !TF_GetCode(status); type++) {
        TF_KernelBuilder *kernel = TF_NewKernelBuilder(operation->name, "CPU", create,
                                                       operation->compute[type], destroy);
        TF_KernelBuilder_TypeConstraint(kernel, "T", type == FLOAT32 ? TF_FLOAT : TF_DOUBLE,
                                        status);
        if (!TF_GetCode(status))
            TF_RegisterKernelBuilder(operation->name, kernel, status); /* takes the builder */
    }
}

__attribute__((constructor)) static void register_operations(void) {
    if (!find_functions())
        return;
    TF_Status *status = TF_NewStatus();
    for (size_t i = 0; i < sizeof operations / sizeof *operations && !TF_GetCode(status); i++)
        register_operation(&operations[i], status);
    TF_DeleteStatus(status);
}
