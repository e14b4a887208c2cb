/* tritkit: run ternary networks (ONNX files as docs/format.md describes them) on an ordinary CPU.
 *
 *   tk_error error;
 *   tk_session* session;
 *   if (tk_session_open("net.onnx", NULL, &session, &error)) { fprintf(stderr, "%s\n", error.message); return 1; }
 *   tk_tensor image = {pixels, TK_FLOAT32, 4, {1, 3, 32, 32}}, logits = {scores, TK_FLOAT32, 2, {1, 10}};
 *   if (tk_session_run(session, &image, 1, &logits, 1, &error)) fprintf(stderr, "%s\n", error.message);
 *   tk_session_close(session);
 *
 * Plain C99. No function throws, prints, exits or keeps a pointer to its arguments. Strings are UTF-8 as the file has them and
 * live as long as the session. Threads: any function may be called from any thread; calls of tk_session_run on one session are
 * executed one after another. After fork() sessions of the parent work in the child. Closing a session in use is an error of
 * the caller.
 *
 * Environment, read when a session is opened: TRITKIT_ISA overrides tk_options.isa, TRITKIT_THREADS is the number of threads
 * where tk_options.threads is 0.
 */
#ifndef TRITKIT_H
#define TRITKIT_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define TK_API
#else
#define TK_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define TK_MAX_RANK 8

typedef enum tk_status {
  TK_OK = 0,
  TK_BAD_ARGUMENT = 1,  /* the caller's mistake: wrong shape, a NaN, an unknown option */
  TK_BAD_MODEL = 2,     /* the file is damaged, hostile or breaks docs/format.md */
  TK_UNSUPPORTED = 3,   /* a sound file with an operation that this engine does not run */
  TK_OUT_OF_MEMORY = 4, /* the activations of this batch, or the weights, do not fit */
  TK_IO_ERROR = 5,      /* the file cannot be read */
  TK_INTERNAL = 6       /* a defect of tritkit */
} tk_status;

/* One sentence: what was given, what is allowed, what to do. Written only when a function fails; may be NULL everywhere. */
typedef struct tk_error {
  char message[1024];
} tk_error;

/* A loaded network with its plan, packed weights, threads and working memory. */
typedef struct tk_session tk_session;

typedef enum tk_dtype { TK_FLOAT32 = 1, TK_UINT8 = 2 } tk_dtype;

/* Zero-initialise, then set size = sizeof(tk_options). */
typedef struct tk_options {
  size_t size;
  int32_t threads;    /* 1 to 1024; 0: TRITKIT_THREADS, else the CPUs this process may use */
  const char* isa;    /* "scalar" < "avx2" < "avxvnni" < "avx512vnni" < "amx": use no newer instructions; NULL: all this CPU has */
  const char* engine; /* "auto" (also NULL): the fastest for each layer, tried when the session is opened; "dense": only kernels that
                         do not skip zeros, from weights of 2 bits; "unpacked": these, from weights unpacked to bytes; "gather",
                         "baked": those that skip zeros, without and with machine code made for the weights; "winograd": those
                         that save products of 3x3 convolutions; each for every ternary convolution that it can run;
                         "reference": the scalar kernels that define the result */
  int64_t code_limit; /* bytes of machine code that a session may make; 0: 64 MiB, -1: none */
  const char* tuned;  /* a file that keeps what "auto" found for this network, CPU, version and number of threads, so that the next
                         session opens without trying; made where it is missing, made anew where it is of another; NULL: none */
} tk_options;

/* A dense row-major array of the caller. */
typedef struct tk_tensor {
  void* data;
  tk_dtype dtype;
  int32_t rank;
  int64_t dims[TK_MAX_RANK];
} tk_tensor;

/* An input or output of the network; dims[0] is -1, the free batch. */
typedef struct tk_value_info {
  const char* name;
  tk_dtype dtype;
  int32_t rank;
  int64_t dims[TK_MAX_RANK];
} tk_value_info;

/* One step of the plan: one node, or several fused into one. Shapes are of one image (no batch). */
typedef struct tk_step_info {
  const char* name;     /* node name: the module path in the trained network; fused nodes joined by " + " */
  const char* op;       /* operation in the file, e.g. "TernaryQConv" or "TernaryQConv + QAdd" */
  const char* kernel;   /* e.g. "avx512vnni_6x64" */
  int32_t input_rank, output_rank;
  int64_t input_dims[TK_MAX_RANK], output_dims[TK_MAX_RANK];
  int64_t weights;      /* number of weights; 0 for a step that has none */
  int64_t nonzero;      /* of which not zero */
  int64_t packed_bytes; /* what the kernel reads of them */
  int64_t macs;         /* multiply-accumulates an image, zeros included */
  int64_t code_bytes;   /* machine code made for it; 0 for a step that has none */
  int64_t dense_nanoseconds, unpacked_nanoseconds, gather_nanoseconds, winograd_nanoseconds, baked_nanoseconds; /* of an image on one
                           thread with each way to run a ternary convolution, where it was timed when the session was opened; else 0 */
} tk_step_info;

/* "0.1.0" */
TK_API const char* tk_version(void);

/* Opens a model. options may be NULL. On success *session must be closed; on failure it is NULL. The bytes given to
 * tk_session_open_memory may be freed when it returns. A file has at most 2^31 - 1 bytes. */
TK_API tk_status tk_session_open(const char* path, const tk_options* options, tk_session** session, tk_error* error);
TK_API tk_status tk_session_open_memory(const void* bytes, size_t size, const tk_options* options, tk_session** session,
                                        tk_error* error);
TK_API void tk_session_close(tk_session* session); /* NULL is allowed */

/* What became of tk_options.tuned, as a sentence; "" where it was not given. */
TK_API const char* tk_session_tuned(const tk_session* session);

TK_API int32_t tk_session_threads(const tk_session* session);
TK_API size_t tk_session_input_count(const tk_session* session);
TK_API size_t tk_session_output_count(const tk_session* session);
TK_API tk_status tk_session_input(const tk_session* session, size_t index, tk_value_info* info, tk_error* error);
TK_API tk_status tk_session_output(const tk_session* session, size_t index, tk_value_info* info, tk_error* error);

/* metadata_props of the file, in file order. */
TK_API size_t tk_session_metadata_count(const tk_session* session);
TK_API tk_status tk_session_metadata(const tk_session* session, size_t index, const char** key, const char** value,
                                     tk_error* error);

TK_API size_t tk_session_step_count(const tk_session* session);
TK_API tk_status tk_session_step(const tk_session* session, size_t index, tk_step_info* info, tk_error* error);

/* Nanoseconds that the cost model gives an image on one thread, for the kernel that runs the step; 0 for a step that is no ternary layer,
 * or that does not exist. */
TK_API int64_t tk_session_step_predicted(const tk_session* session, size_t index);

/* Bytes of working memory that a batch needs; -1 if the number does not fit or batch < 1. */
TK_API int64_t tk_session_arena_bytes(const tk_session* session, int64_t batch);

/* Computes all outputs from all inputs, both in the order of the file. Inputs are only read; outputs are written to the
 * caller's arrays, whose shapes must be right. The batch is dims[0] of every tensor, at least 1. The working memory grows with
 * the largest batch seen; no other call allocates. */
TK_API tk_status tk_session_run(tk_session* session, const tk_tensor* inputs, size_t input_count, const tk_tensor* outputs,
                                size_t output_count, tk_error* error);

/* The same, adding the time of each step to nanoseconds[tk_session_step_count]. */
TK_API tk_status tk_session_profile(tk_session* session, const tk_tensor* inputs, size_t input_count, const tk_tensor* outputs,
                                    size_t output_count, int64_t* nanoseconds, tk_error* error);

/* The convolution kernels that this build has and this CPU can run, preferred first. */
TK_API size_t tk_kernel_count(void);
TK_API tk_status tk_kernel(size_t index, const char** name, const char** isa, tk_error* error);

#ifdef __cplusplus
}
#endif
#endif
