#include "base/threads.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define TRITKIT_FORK 1
#endif

namespace tritkit {
namespace {

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// True as soon as done() is; false once it was not for spin_us.
template <typename Done>
bool spin_until(Done done, int spin_us) {
  if (done()) return true;
  if (spin_us <= 0) return false;
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(spin_us);
  do {
    for (int i = 0; i < 16; ++i) {
      relax();
      if (done()) return true;
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

struct Job {
  void (*fn)(void*, int64_t, int, int) = nullptr;
  void* ctx = nullptr;
  uint64_t first = 0;  // number of its stage 0
};

}  // namespace

// One process's threads.
//
// Stages are numbered over all jobs, and each is cut into as many slices as there are threads. A thread claims its own slice, which
// keeps its data in its core's cache, runs it, says so, and looks at the others until all have: nobody has to be told to go on, which
// would take as long again. Who waits for some time takes slices that nobody has begun: a thread that comes late, because other
// programs have its core, finds them done. The caller waits for slices that others have begun, never for a thread to wake.
//
// Who finishes something stores it and then looks for sleepers, a sleeper says so and then looks at what was stored; both with
// sequentially consistent operations, so one of them sees the other and no wake-up is lost.
struct ThreadPool::Team {
  Team(int threads, int spin_us) : spin_us(spin_us), claimed(static_cast<size_t>(threads)), finished(static_cast<size_t>(threads)) {
    workers.reserve(static_cast<size_t>(threads - 1));
    try {
      for (int i = 1; i < threads; ++i) workers.emplace_back([this, i] { work(i); });
    } catch (const std::system_error&) {
      // Fewer threads are slower, not wrong.
    }
    slices = static_cast<int>(workers.size()) + 1;  // the first store to `open` shows it to the workers
  }

  ~Team() {
    stop.store(true);
    wake();
    for (std::thread& worker : workers) worker.join();
  }

  void run(int64_t stages, Job next) {
    const std::lock_guard<std::mutex> turn(callers);
    const uint64_t first = open.load() + 1, last = open.load() + static_cast<uint64_t>(stages);
    job = next;
    job.first = first;
    open.store(last);
    wake();
    bool late = false;
    for (uint64_t stage = first; stage <= last; ++stage) {
      take(0, stage);
      wait_for(stage, &late);
    }
  }

 private:
  // Alone in its cache line, and in the pair of them that some CPUs fetch at once: different threads write neighbours.
  struct alignas(128) Line {
    std::atomic<uint64_t> stage{0};
  };

  void wake() {
    if (asleep.load() == 0) return;
    { const std::lock_guard<std::mutex> lock(mutex); }
    progress.notify_all();
  }

  template <typename Ready>
  void wait(Ready ready) {
    if (spin_until(ready, spin_us)) return;
    std::unique_lock<std::mutex> lock(mutex);
    asleep.fetch_add(1);
    progress.wait(lock, ready);
    asleep.fetch_sub(1);
  }

  // Runs the slice unless another thread has. Every slice is claimed in every stage, so one that may be claimed in this stage was last
  // claimed in the one before. `job` stays as it is from a claim to the end of its slice.
  bool take(int slice, uint64_t stage) {
    uint64_t before = stage - 1;
    std::atomic<uint64_t>& claim = claimed[static_cast<size_t>(slice)].stage;
    if (claim.load() != before || !claim.compare_exchange_strong(before, stage)) return false;
    job.fn(job.ctx, static_cast<int64_t>(stage - job.first), slice, slices);
    finished[static_cast<size_t>(slice)].stage.store(stage);
    wake();
    return true;
  }

  // Until all slices of the stage are finished. `late`: others were, so their slices are taken at once; else after a moment, since a
  // look at what others claim takes its cache line from them.
  void wait_for(uint64_t stage, bool* late) {
    int done = 0;
    const auto ready = [&] {
      while (done < slices && finished[static_cast<size_t>(done)].stage.load() >= stage) ++done;
      return done == slices;
    };
    if (spin_until(ready, *late ? 0 : kPatienceUs)) return;
    *late = false;
    for (int slice = 0; slice < slices; ++slice) *late = take(slice, stage) || *late;
    wait(ready);
  }

  void work(int own) {
    bool late = false;
    for (;;) {
      const uint64_t next = claimed[static_cast<size_t>(own)].stage.load() + 1;
      wait([&] { return open.load() >= next || stop.load(); });
      if (stop.load()) return;
      wait_for(next - 1, &late);
      take(own, next);
    }
  }

  static constexpr int kPatienceUs = 2;
  const int spin_us;
  int slices = 1;
  std::vector<Line> claimed, finished;  // the last stage in which each slice was
  std::vector<std::thread> workers;
  std::mutex callers, mutex;
  std::condition_variable progress;
  std::atomic<bool> stop{false};
  std::atomic<int> asleep{0};
  alignas(128) std::atomic<uint64_t> open{0};  // the last stage that may begin, once those before are finished
  Job job;
};

// A child of fork() has none of the parent's threads: its pools forget their teams (which leak; their locks may be held for
// ever) and start new ones when next used.
struct ThreadPool::Registry {
  static Registry& get() {
    static Registry* const registry = new Registry();  // never destroyed: pools may be static objects too
    return *registry;
  }

  void add(ThreadPool* pool) {
    const std::lock_guard<std::mutex> lock(mutex);
    pool->next_ = first;
    first = pool;
  }

  void remove(ThreadPool* pool) {
    const std::lock_guard<std::mutex> lock(mutex);
    ThreadPool** link = &first;
    while (*link != pool) link = &(*link)->next_;
    *link = pool->next_;
  }

 private:
  Registry() {
#ifdef TRITKIT_FORK
    pthread_atfork([] { get().mutex.lock(); }, [] { get().mutex.unlock(); }, &Registry::after_fork_in_child);
#endif
  }

  static void after_fork_in_child() {
    for (ThreadPool* pool = get().first; pool; pool = pool->next_) pool->team_.store(nullptr);
    get().mutex.unlock();
  }

  std::mutex mutex;
  ThreadPool* first = nullptr;
};

ThreadPool::ThreadPool(int threads, int spin_us) : size_(threads < 1 ? 1 : threads), spin_us_(spin_us) {
  if (size_ == 1) return;
  team_.store(new Team(size_, spin_us_));
  Registry::get().add(this);
}

ThreadPool::~ThreadPool() {
  if (size_ == 1) return;
  Registry::get().remove(this);
  delete team_.load();
}

ThreadPool::Team* ThreadPool::team() {
  Team* current = team_.load(std::memory_order_acquire);
  if (current) return current;
  Team* const fresh = new Team(size_, spin_us_);
  if (team_.compare_exchange_strong(current, fresh)) return fresh;
  delete fresh;  // another caller was first
  return current;
}

void ThreadPool::run(int64_t stages, void (*fn)(void* ctx, int64_t stage, int part, int parts), void* ctx) {
  if (size_ > 1) return team()->run(stages, {fn, ctx, 0});
  for (int64_t stage = 0; stage < stages; ++stage) fn(ctx, stage, 0, 1);
}

}  // namespace tritkit
