// A small pool of threads that share out fixed slices of a job: no OpenMP, so it lives beside any other runtime in the process.
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

  // Calls fn(ctx, part) once for each part in [0, parts), in size() even slices: usually thread t runs the t-th, but whoever is
  // awake takes the slice of a thread that comes late. Returns when all are done. fn must neither throw (the process would end)
  // nor call run() of the same pool. Callers on several threads take turns. In a forked child the pool starts its threads anew
  // at the first run().
  void run(int64_t parts, void (*fn)(void* ctx, int64_t part), void* ctx);

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
