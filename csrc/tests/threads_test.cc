// The thread pool: every part of every stage once and in order, several callers, thousands of short jobs, and life after fork().
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "base/cpu.h"
#include "base/threads.h"

using tritkit::ThreadPool;

namespace {

int failures = 0;

void expect(bool ok, const char* what) {
  if (ok) return;
  ++failures;
  std::printf("FAILED: %s\n", what);
}

// How often each part of each stage ran, and whether a part began while another of the stage before was still to do.
struct Counts {
  explicit Counts(int64_t stages) : parts(static_cast<size_t>(stages * kMost)), done(static_cast<size_t>(stages)) {}
  static constexpr int64_t kMost = 8;  // threads
  std::vector<std::atomic<int>> parts, done;
  std::atomic<int> size{0};
  std::atomic<bool> early{false};
};

void count(void* ctx, int64_t stage, int part, int parts) {
  Counts& counts = *static_cast<Counts*>(ctx);
  if (stage > 0 && counts.done[static_cast<size_t>(stage - 1)].load() != parts) counts.early = true;
  counts.parts[static_cast<size_t>(stage * Counts::kMost + part)].fetch_add(1);
  counts.size = parts;
  counts.done[static_cast<size_t>(stage)].fetch_add(1);
}

bool every_part_once(ThreadPool& pool, int64_t stages) {
  Counts counts(stages);
  pool.run(stages, count, &counts);
  for (int64_t i = 0; i < stages * Counts::kMost; ++i) {
    if (counts.parts[static_cast<size_t>(i)].load() != (i % Counts::kMost < counts.size ? 1 : 0)) return false;
  }
  return !counts.early && (stages == 0 || counts.size == pool.size());
}

void check_parts() {
  for (const int threads : {-1, 1, 2, 3, 8}) {
    for (const int spin_us : {0, 30}) {
      ThreadPool pool(threads, spin_us);
      expect(pool.size() == (threads < 1 ? 1 : threads), "a pool has as many threads as asked for, at least one");
      for (const int64_t stages : {0, 1, 2, 3, 9, 1000}) expect(every_part_once(pool, stages), "each part of each stage runs once, in order");
    }
  }
}

// Threads asleep, waking and spinning.
void check_short_jobs() {
  for (const int spin_us : {0, 1, 100}) {
    ThreadPool pool(3, spin_us);
    for (int i = 0; i < 3000; ++i) {
      if (!every_part_once(pool, 1 + i % 4)) return expect(false, "each part of a short job runs once");
      if (i % 300 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
}

// Stages whose parts take unequal time, now one, now another: threads wait, sleep and are woken within a job.
void check_uneven_stages() {
  for (const int spin_us : {0, 30}) {
    ThreadPool pool(4, spin_us);
    Counts counts(60);
    pool.run(60, [](void* ctx, int64_t stage, int part, int parts) {
      if (part == stage % parts) std::this_thread::sleep_for(std::chrono::microseconds(200));
      count(ctx, stage, part, parts);
    }, &counts);
    expect(!counts.early, "no stage begins before the one before is done");
  }
}

// A job shorter than a sleeping thread's waking is done by the caller alone.
void check_late_workers() {
  struct Job {
    std::thread::id caller = std::this_thread::get_id();
    std::atomic<int> by_caller{0};
  };
  ThreadPool pool(4, 0);
  int alone = 0;
  for (int i = 0; i < 200; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    Job job;
    pool.run(1, [](void* ctx, int64_t, int, int) {
      Job& j = *static_cast<Job*>(ctx);
      if (std::this_thread::get_id() == j.caller) ++j.by_caller;
    }, &job);
    alone += job.by_caller == 4;
  }
  expect(alone > 0, "the caller takes the slices of threads that come late");
}

void check_several_callers() {
  ThreadPool pool(3);
  std::atomic<bool> ok{true};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&] {
      for (int i = 0; i < 500; ++i) ok = every_part_once(pool, 5 + i % 7) && ok;
    });
  }
  for (std::thread& caller : callers) caller.join();
  expect(ok, "callers on several threads take turns");
}

#if !defined(__SANITIZE_THREAD__)  // its run time does not follow threads started in a forked child
// The child leaves by _exit: nothing of the parent's is destroyed twice.
bool in_child(ThreadPool& pool) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    bool ok = every_part_once(pool, 100) && every_part_once(pool, 3);
    ThreadPool own(2);
    ok = every_part_once(own, 10) && ok;
    _exit(ok ? 0 : 1);
  }
  int status = -1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

void check_fork() {
  ThreadPool pool(3);
  expect(in_child(pool), "a pool that never ran works in a child");
  expect(every_part_once(pool, 100), "the parent's pool works after a fork");
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) every_part_once(pool, 10);
  });
  for (int i = 0; i < 20; ++i) expect(in_child(pool), "a pool that was running on another thread works in a child");
  stop = true;
  busy.join();
}

#else
void check_fork() {}
#endif

void check_cpu() {
  const double additions = tritkit::wide_additions_per_cycle();
  expect(tritkit::cpu_has_isa("avx512vnni") ? additions > 0.1 && additions < 8 : additions == 0, "a core has some units of 512 bits, or none");
  size_t names = 0;
  const char* const* isa = tritkit::isa_names(&names);
  for (size_t i = 0; i < names; ++i) expect(tritkit::isa_rank(isa[i]) == static_cast<int>(i), "names are in order of rank");
  expect(tritkit::isa_rank("sse9") == -1 && !tritkit::cpu_has_isa("sse9"), "an unknown instruction set has no rank");
  expect(tritkit::cpu_has_isa("scalar"), "every CPU runs scalar code");
  const tritkit::CpuFeatures& f = tritkit::cpu_features();
#if defined(__x86_64__)
  __builtin_cpu_init();
  expect(f.avx2 == (__builtin_cpu_supports("avx2") != 0), "AVX2 as the compiler's run time sees it");
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
  expect(f.avx512vnni == wide, "AVX-512 VNNI as the compiler's run time sees it");
  expect(!f.avxvnni || f.avx2, "AVX-VNNI only with AVX2");
  expect(!f.amx || f.avx512vnni, "AMX only with AVX-512 VNNI");
#else
  expect(!f.avx2 && !f.avxvnni && !f.avx512vnni && !f.amx, "no x86 instructions on another CPU");
#endif
}

}  // namespace

int main() {
  check_cpu();
  check_parts();
  check_short_jobs();
  check_uneven_stages();
  check_late_workers();
  check_several_callers();
  check_fork();
  std::printf(failures ? "%d failures\n" : "all passed\n", failures);
  return failures != 0;
}
