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
  int64_t parts = 0;
  void (*fn)(void*, int64_t) = nullptr;
  void* ctx = nullptr;
};

void run_slice(const Job& job, int slice, int slices) noexcept {
  const int64_t begin = job.parts * slice / slices, end = job.parts * (slice + 1) / slices;
  for (int64_t part = begin; part < end; ++part) job.fn(job.ctx, part);
}

}  // namespace

// One process's threads. A publisher stores and then looks for sleepers, a sleeper says so and then looks at what was stored;
// both with sequentially consistent operations, so one of them sees the other and no wake-up is lost.
//
// A job is cut into as many slices as there are threads. Each thread claims its own first, which keeps its data in its core's
// cache, and then those that nobody has begun: who comes late, because other programs have its core, finds its slice done. The
// caller waits for slices that others have begun, never for a thread to wake.
struct ThreadPool::Team {
  Team(int threads, int spin_us) : spin_us(spin_us), claims(static_cast<size_t>(threads)) {
    workers.reserve(static_cast<size_t>(threads - 1));
    try {
      for (int i = 1; i < threads; ++i) workers.emplace_back([this, i] { work(i); });
    } catch (const std::system_error&) {
      // Fewer threads are slower, not wrong.
    }
    slices = static_cast<int>(workers.size()) + 1;  // the first publish() shows it to the workers
  }

  ~Team() {
    stop.store(true);
    publish();
    for (std::thread& worker : workers) worker.join();
  }

  void run(const Job& next) {
    const std::lock_guard<std::mutex> turn(callers);
    job = next;
    unfinished.store(slices);
    const uint64_t turn_number = publish();
    run_slices(0, turn_number);
    wait(caller_asleep, done, [this] { return unfinished.load() == 0; });
  }

 private:
  // The last turn in which the slice was claimed; alone in its cache line, as different threads write neighbours.
  struct alignas(64) Claim {
    std::atomic<uint64_t> turn{0};
  };

  uint64_t publish() {
    const uint64_t turn = epoch.fetch_add(1) + 1;
    wake(workers_asleep, start);
    return turn;
  }

  void wake(std::atomic<int>& asleep, std::condition_variable& condition) {
    if (asleep.load() == 0) return;
    { const std::lock_guard<std::mutex> lock(mutex); }
    condition.notify_all();
  }

  template <typename Ready>
  void wait(std::atomic<int>& asleep, std::condition_variable& condition, Ready ready) {
    if (spin_until(ready, spin_us)) return;
    std::unique_lock<std::mutex> lock(mutex);
    asleep.fetch_add(1);
    condition.wait(lock, ready);
    asleep.fetch_sub(1);
  }

  // Every slice is claimed in every turn, so one that may be claimed in this turn was last claimed in the one before. A thread whose
  // turn is over claims nothing. `job` stays as it is from a claim to the end of its slice.
  bool claim(int slice, uint64_t turn) {
    uint64_t before = turn - 1;
    return claims[static_cast<size_t>(slice)].turn.compare_exchange_strong(before, turn);
  }

  void run_slices(int own, uint64_t turn) {
    const int count = slices;
    for (int i = 0; i < count; ++i) {
      const int slice = own + i < count ? own + i : own + i - count;
      if (!claim(slice, turn)) continue;
      run_slice(job, slice, count);
      if (unfinished.fetch_sub(1) == 1) wake(caller_asleep, done);
    }
  }

  void work(int thread) {
    uint64_t seen = 0;
    for (;;) {
      wait(workers_asleep, start, [&] { return epoch.load() != seen; });
      seen = epoch.load();
      if (stop.load()) return;
      run_slices(thread, seen);
    }
  }

  const int spin_us;
  int slices = 1;
  Job job;
  std::mutex callers, mutex;
  std::condition_variable start, done;
  std::atomic<bool> stop{false};
  std::vector<Claim> claims;
  alignas(64) std::atomic<uint64_t> epoch{0};
  std::atomic<int> workers_asleep{0};
  alignas(64) std::atomic<int> unfinished{0};
  std::atomic<int> caller_asleep{0};
  std::vector<std::thread> workers;
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

void ThreadPool::run(int64_t parts, void (*fn)(void* ctx, int64_t part), void* ctx) {
  const Job job{parts, fn, ctx};
  if (size_ == 1 || parts <= 1) {
    run_slice(job, 0, 1);
  } else {
    team()->run(job);
  }
}

}  // namespace tritkit
