// The C API: checks pointers, turns exceptions into a status and a sentence.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>

#include "base/cpu.h"
#include "base/error.h"
#include "kernels/baked/baked.h"
#include "kernels/conv/conv.h"
#include "kernels/gather/gather.h"
#include "kernels/winograd/winograd.h"
#include "runtime/session.h"

#ifndef TRITKIT_VERSION
#define TRITKIT_VERSION "0.0.0"
#endif

struct tk_session {
  tk_session(std::string_view file, const tritkit::Options& options) : impl(file, options) {}
  tritkit::Session impl;
};

namespace tritkit {
namespace {

constexpr size_t max_file = 0x7fffffff;

tk_status report(tk_error* error, tk_status status, const char* message) {
  if (error) std::snprintf(error->message, sizeof error->message, "%s", message);
  return status;
}

template <typename Body>
tk_status guarded(tk_error* error, Body body) noexcept {
  try {
    body();
    return TK_OK;
  } catch (const Error& failure) {
    return report(error, failure.status, failure.what());
  } catch (const std::bad_alloc&) {
    return report(error, TK_OUT_OF_MEMORY, "there is not enough memory for this network and batch");
  } catch (const std::length_error&) {
    return report(error, TK_OUT_OF_MEMORY, "there is not enough memory for this network and batch");
  } catch (const std::exception& failure) {
    return report(error, TK_INTERNAL, failure.what());
  } catch (...) {
    return report(error, TK_INTERNAL, "an unknown failure inside tritkit");
  }
}

[[noreturn]] void cannot_read(const std::string& path, const char* why) {
  throw Error(TK_IO_ERROR, "cannot read " + path + ": " + why);
}

std::unique_ptr<char[]> read_file(const char* path, size_t* size) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path, "rb"), std::fclose);
  if (!file) cannot_read(path, std::strerror(errno));
  const long end = std::fseek(file.get(), 0, SEEK_END) == 0 ? std::ftell(file.get()) : -1;
  if (end < 0) cannot_read(path, "it is not a regular file");
  if (static_cast<unsigned long>(end) > max_file) bad_model("the file has more than 2^31 - 1 bytes, which no ONNX file may have");
  std::rewind(file.get());
  std::unique_ptr<char[]> bytes(new char[static_cast<size_t>(end) + 1]);
  *size = std::fread(bytes.get(), 1, static_cast<size_t>(end), file.get());
  if (*size != static_cast<size_t>(end)) cannot_read(path, errno ? std::strerror(errno) : "it is shorter than it says");
  return bytes;
}

void open(std::string_view file, const tk_options* options, tk_session** session) {
  *session = new tk_session(file, resolve(options));
}

void describe(const Value& value, int32_t* rank, int64_t* dims) {
  const int64_t shape[3] = {value.channels, value.height, value.width};
  *rank = value.rank - 1;
  for (int32_t i = 0; i < *rank; ++i) dims[i] = shape[i];
}

void describe(const std::vector<Value>& values, size_t index, tk_value_info* info) {
  if (!info || index >= values.size()) bad_argument("there is no input or output of index " + std::to_string(index));
  *info = tk_value_info{};
  info->name = values[index].name.c_str();
  info->dtype = TK_FLOAT32;
  describe(values[index], &info->rank, info->dims + 1);
  info->rank += 1;
  info->dims[0] = -1;
}

void describe(const StepInfo& step, tk_step_info* info) {
  *info = tk_step_info{};
  info->name = step.name.c_str();
  info->op = step.op.c_str();
  info->kernel = step.kernel.c_str();
  describe(step.input, &info->input_rank, info->input_dims);
  describe(step.output, &info->output_rank, info->output_dims);
  info->weights = step.weights;
  info->nonzero = step.nonzero;
  info->packed_bytes = step.packed_bytes;
  info->macs = step.macs;
  info->code_bytes = step.code_bytes;
  info->dense_nanoseconds = step.dense_nanoseconds;
  info->unpacked_nanoseconds = step.unpacked_nanoseconds;
  info->gather_nanoseconds = step.gather_nanoseconds;
  info->winograd_nanoseconds = step.winograd_nanoseconds;
  info->baked_nanoseconds = step.baked_nanoseconds;
}

struct KernelName {
  const char *name, *isa;
};

// The convolution kernels of this CPU: those that skip zeros or products, then the dense ones, preferred first.
std::vector<KernelName> kernel_names() {
  const ConvKernel* kernels[64];
  const size_t count = conv_kernels(nullptr, kernels, 64);
  std::vector<KernelName> names;
  if (GatherConv::available(nullptr)) names.push_back({GatherConv::name(), GatherConv::isa()});
  if (WinogradConv::available(nullptr)) names.push_back({WinogradConv::name(), WinogradConv::isa()});
  const BakedKernel* baked[2];
  const size_t baked_count = baked_kernels(nullptr, baked);
  for (size_t i = 0; i < baked_count; ++i) names.push_back({baked[i]->name, baked[i]->isa});
  for (size_t i = 0; i < count; ++i) names.push_back({kernels[i]->name, kernels[i]->isa});
  return names;
}

}  // namespace
}  // namespace tritkit

using tritkit::bad_argument;
using tritkit::guarded;

const char* tk_version(void) { return TRITKIT_VERSION; }

tk_status tk_session_open(const char* path, const tk_options* options, tk_session** session, tk_error* error) {
  if (session) *session = nullptr;
  return guarded(error, [&] {
    if (!path || !session) bad_argument("path and session must not be NULL");
    size_t size = 0;
    const std::unique_ptr<char[]> bytes = tritkit::read_file(path, &size);
    tritkit::open({bytes.get(), size}, options, session);
  });
}

tk_status tk_session_open_memory(const void* bytes, size_t size, const tk_options* options, tk_session** session, tk_error* error) {
  if (session) *session = nullptr;
  return guarded(error, [&] {
    if (!session || (!bytes && size > 0)) bad_argument("bytes and session must not be NULL");
    if (size > tritkit::max_file) tritkit::bad_model("the file has more than 2^31 - 1 bytes, which no ONNX file may have");
    tritkit::open({static_cast<const char*>(bytes), size}, options, session);
  });
}

void tk_session_close(tk_session* session) { delete session; }

const char* tk_session_tuned(const tk_session* session) { return session ? session->impl.tuned().c_str() : ""; }
int32_t tk_session_threads(const tk_session* session) { return session ? session->impl.threads() : 0; }
size_t tk_session_input_count(const tk_session* session) { return session ? session->impl.inputs().size() : 0; }
size_t tk_session_output_count(const tk_session* session) { return session ? session->impl.outputs().size() : 0; }
size_t tk_session_metadata_count(const tk_session* session) { return session ? session->impl.metadata().size() : 0; }
int64_t tk_session_step_predicted(const tk_session* session, size_t index) {
  return session && index < session->impl.steps().size() ? session->impl.steps()[index]->info.predicted_nanoseconds : 0;
}
size_t tk_session_step_count(const tk_session* session) { return session ? session->impl.steps().size() : 0; }

tk_status tk_session_input(const tk_session* session, size_t index, tk_value_info* info, tk_error* error) {
  return guarded(error, [&] {
    if (!session) bad_argument("session must not be NULL");
    tritkit::describe(session->impl.inputs(), index, info);
  });
}

tk_status tk_session_output(const tk_session* session, size_t index, tk_value_info* info, tk_error* error) {
  return guarded(error, [&] {
    if (!session) bad_argument("session must not be NULL");
    tritkit::describe(session->impl.outputs(), index, info);
  });
}

tk_status tk_session_metadata(const tk_session* session, size_t index, const char** key, const char** value, tk_error* error) {
  return guarded(error, [&] {
    if (!session || !key || !value || index >= session->impl.metadata().size()) bad_argument("there is no such metadata entry");
    *key = session->impl.metadata()[index].first.c_str();
    *value = session->impl.metadata()[index].second.c_str();
  });
}

tk_status tk_session_step(const tk_session* session, size_t index, tk_step_info* info, tk_error* error) {
  return guarded(error, [&] {
    if (!session || !info || index >= session->impl.steps().size()) bad_argument("there is no such step");
    tritkit::describe(session->impl.steps()[index]->info, info);
  });
}

int64_t tk_session_arena_bytes(const tk_session* session, int64_t batch) { return session ? session->impl.arena_bytes(batch) : -1; }

tk_status tk_session_run(tk_session* session, const tk_tensor* inputs, size_t input_count, const tk_tensor* outputs, size_t output_count,
                         tk_error* error) {
  return tk_session_profile(session, inputs, input_count, outputs, output_count, nullptr, error);
}

tk_status tk_session_profile(tk_session* session, const tk_tensor* inputs, size_t input_count, const tk_tensor* outputs, size_t output_count,
                             int64_t* nanoseconds, tk_error* error) {
  return guarded(error, [&] {
    if (!session) bad_argument("session must not be NULL");
    session->impl.run(inputs, input_count, outputs, output_count, nanoseconds);
  });
}

size_t tk_kernel_count(void) { return tritkit::kernel_names().size(); }

tk_status tk_kernel(size_t index, const char** name, const char** isa, tk_error* error) {
  return guarded(error, [&] {
    const std::vector<tritkit::KernelName> kernels = tritkit::kernel_names();
    if (!name || !isa || index >= kernels.size()) bad_argument("there is no such kernel");
    *name = kernels[index].name;
    *isa = kernels[index].isa;
  });
}
