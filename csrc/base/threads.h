// A small pool of threads that go through the stages of a job together: no OpenMP, so it lives beside any other runtime in the process.
#pragma once
#include <atomic>
#include <cstdint>

namespace tritkit {

class ThreadPool {
 public:
  // `threads` in all, the caller of run() being one of them; fewer where the system refuses to start them. An idle thread
  // spins for `spin_us` microseconds before it sleeps.
  explicit ThreadPool(int threads, int spin_us = 30);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Calls fn(ctx, stage, part, parts) once for each stage in [0, stages) and each part in [0, parts), a stage when all parts of the
  // one before are done. `parts` is size(), or less where there are fewer threads; usually thread t runs part t, but who waits takes
  // the part of a thread that comes late. Returns when all are done. fn must neither throw (the process would end) nor call run() of
  // the same pool. Callers on several threads take turns. In a forked child the pool starts its threads anew at the first run().
  void run(int64_t stages, void (*fn)(void* ctx, int64_t stage, int part, int parts), void* ctx);

  int size() const { return size_; }

 private:
  struct Team;
  struct Registry;
  Team* team();

  const int size_;
  const int spin_us_;
  std::atomic<Team*> team_{nullptr};  // null for one thread, and in a forked child until its first run
  ThreadPool* next_ = nullptr;        // all pools, for the fork handler
};

}  // namespace tritkit
