// Sessions from C++: the same bits on any engine and thread count, from several threads and after fork; wrong arguments.
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "tests/expect.h"
#include "tests/onnx_bytes.h"
#include "tritkit.h"

namespace {

#if defined(__SANITIZE_THREAD__)
constexpr bool can_fork = false;  // the thread sanitizer does not follow a fork with threads
#else
constexpr bool can_fork = true;
#endif

tk_session* open(int threads, const char* engine) {
  const std::string file = tritkit_test::small_model();
  tk_options options{};
  options.size = sizeof options;
  options.threads = threads;
  options.engine = engine;
  tk_session* session = nullptr;
  tk_error error{};
  const tk_status status = tk_session_open_memory(file.data(), file.size(), &options, &session, &error);
  if (status) std::printf("%s\n", error.message);
  EXPECT(status == TK_OK);
  return session;
}

std::vector<float> pixels(int64_t batch) {
  std::vector<float> result(static_cast<size_t>(batch * 32));
  for (size_t i = 0; i < result.size(); ++i) result[i] = static_cast<float>(std::sin(0.7 * static_cast<double>(i))) * 4;
  return result;
}

tk_status run(tk_session* session, std::vector<float> x, std::vector<float>* y, tk_error* error = nullptr) {
  const int64_t batch = static_cast<int64_t>(x.size()) / 32;
  y->assign(static_cast<size_t>(batch * 3), -1.0f);
  const tk_tensor in{x.data(), TK_FLOAT32, 4, {batch, 2, 4, 4}}, out{y->data(), TK_FLOAT32, 2, {batch, 3}};
  return tk_session_run(session, &in, 1, &out, 1, error);
}

void all_engines_agree() {
  std::vector<float> want, got;
  tk_session* reference = open(1, "reference");
  EXPECT(run(reference, pixels(7), &want) == TK_OK);
  EXPECT(want[0] != want[3]);
  for (int threads : {1, 2, 3, 8}) {
    tk_session* session = open(threads, nullptr);
    for (int repeat = 0; repeat < 20; ++repeat) EXPECT(run(session, pixels(7), &got) == TK_OK && got == want);
    tk_session_close(session);
  }
  tk_session_close(reference);
}

void threads_take_turns() {
  tk_session* session = open(2, nullptr);
  std::vector<float> want;
  EXPECT(run(session, pixels(5), &want) == TK_OK);
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&, i] {
      std::vector<float> got;
      for (int repeat = 0; repeat < 50; ++repeat) {
        const int64_t batch = 1 + (i + repeat) % 5;
        const bool good = run(session, pixels(batch), &got) == TK_OK && std::memcmp(got.data(), want.data(), got.size() * 4) == 0;
        if (!good) std::abort();
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  tk_session_close(session);
}

void child_of_a_fork_runs() {
  if (!can_fork) return;
  tk_session* session = open(2, nullptr);
  std::vector<float> want, got;
  EXPECT(run(session, pixels(5), &want) == TK_OK);
  const pid_t child = fork();
  if (child == 0) _exit(run(session, pixels(5), &got) == TK_OK && got == want ? 0 : 1);
  int status = 1;
  EXPECT(waitpid(child, &status, 0) == child && status == 0);
  EXPECT(run(session, pixels(5), &got) == TK_OK && got == want);
  tk_session_close(session);
}

bool says(const tk_error& error, const char* words) { return std::strstr(error.message, words) != nullptr; }

void wrong_arguments() {
  tk_session* session = open(1, nullptr);
  tk_error error{};
  std::vector<float> x = pixels(3), y;
  x[40] = std::numeric_limits<float>::quiet_NaN();
  EXPECT(run(session, x, &y, &error) == TK_BAD_ARGUMENT && says(error, "image 1"));
  EXPECT(run(session, {}, &y, &error) == TK_BAD_ARGUMENT && says(error, "batch of 0"));
  float data[64] = {};
  tk_tensor in{data, TK_FLOAT32, 4, {1, 2, 4, 4}}, out{data, TK_FLOAT32, 2, {2, 3}};
  EXPECT(tk_session_run(session, &in, 1, &out, 1, &error) == TK_BAD_ARGUMENT && says(error, "batch of 2"));
  EXPECT(tk_session_run(session, &in, 1, &out, 0, &error) == TK_BAD_ARGUMENT);
  EXPECT(tk_session_run(session, nullptr, 1, &out, 1, &error) == TK_BAD_ARGUMENT);
  EXPECT(tk_session_run(nullptr, &in, 1, &out, 1, &error) == TK_BAD_ARGUMENT);
  out.dims[0] = 1;
  in.rank = 100;
  EXPECT(tk_session_run(session, &in, 1, &out, 1, &error) == TK_BAD_ARGUMENT && says(error, "rank 100"));
  in.rank = 4;
  in.dtype = TK_UINT8;
  EXPECT(tk_session_run(session, &in, 1, &out, 1, &error) == TK_BAD_ARGUMENT && says(error, "float32"));
  in.dtype = TK_FLOAT32;
  in.dims[0] = out.dims[0] = INT64_MAX / 2;
  EXPECT(tk_session_arena_bytes(session, in.dims[0]) == -1);
  EXPECT(tk_session_arena_bytes(session, 0) == -1);
  tk_session_close(session);
}

void looking_inside() {
  tk_session* session = open(1, nullptr);
  tk_step_info step;
  bool fused = false;
  for (size_t i = 0; i < tk_session_step_count(session); ++i) {
    EXPECT(tk_session_step(session, i, &step, nullptr) == TK_OK);
    fused = fused || !std::strcmp(step.op, "TernaryQConv + QAdd");
  }
  EXPECT(fused);
  EXPECT(tk_session_step(session, 1000, &step, nullptr) == TK_BAD_ARGUMENT);
  const char *key, *value;
  EXPECT(tk_session_metadata_count(session) == 1 && tk_session_metadata(session, 0, &key, &value, nullptr) == TK_OK);
  EXPECT(std::string(key) == "tritkit.format" && std::string(value) == "1");
  tk_session_close(session);
}

}  // namespace

int main() {
  all_engines_agree();
  threads_take_turns();
  child_of_a_fork_runs();
  wrong_arguments();
  looking_inside();
  return tritkit_test::report("session_test");
}
