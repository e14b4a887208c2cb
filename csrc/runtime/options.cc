#include "runtime/options.h"

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <thread>
#if defined(__linux__)
#include <sched.h>
#endif

#include "base/cpu.h"
#include "base/error.h"

namespace tritkit {
namespace {

constexpr long max_threads = 1024;

int usable_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count > 0 ? static_cast<int>(count) : 1;
}

int default_threads() {
  const char* text = std::getenv("TRITKIT_THREADS");
  if (!text || !*text) return usable_cpus();
  char* end = nullptr;
  errno = 0;
  const long count = std::strtol(text, &end, 10);
  if (errno != 0 || *end != '\0' || count < 1 || count > max_threads) {
    bad_argument("TRITKIT_THREADS is " + quoted(text) + ", allowed are 1 to 1024");
  }
  return static_cast<int>(count);
}

std::string isa_list() {
  size_t count = 0;
  const char* const* names = isa_names(&count);
  std::string list;
  for (size_t i = 0; i < count; ++i) list += (i ? ", " : "") + std::string(names[i]);
  return list;
}

std::string chosen_isa(const char* given) {
  const char* environment = std::getenv("TRITKIT_ISA");
  const bool overridden = environment && *environment;
  const std::string isa = overridden ? environment : given ? given : "";
  if (!isa.empty() && isa_rank(isa.c_str()) < 0) {
    bad_argument((overridden ? "TRITKIT_ISA is " : "isa is ") + quoted(isa) + ", allowed are " + isa_list());
  }
  return isa;
}

Engine chosen_engine(const std::string& name) {
  if (name == "auto") return Engine::fastest;
  if (name == "dense") return Engine::dense;
  if (name == "unpacked") return Engine::unpacked;
  if (name == "gather") return Engine::gather;
  if (name == "winograd") return Engine::winograd;
  if (name == "baked") return Engine::baked;
  if (name == "reference") return Engine::reference;
  bad_argument("engine is " + quoted(name) + ", allowed are auto, dense, unpacked, gather, winograd, baked and reference");
}

}  // namespace

Options resolve(const tk_options* given) {
  tk_options known{};
  if (given) {
    if (given->size < offsetof(tk_options, engine) + sizeof known.engine) bad_argument("tk_options.size is not sizeof(tk_options)");
    std::memcpy(&known, given, given->size < sizeof known ? given->size : sizeof known);  // a caller's struct may be older
  }
  if (known.threads < 0 || known.threads > max_threads) {
    bad_argument("threads is " + std::to_string(known.threads) + ", allowed are 1 to 1024, or 0 for all CPUs of this process");
  }
  if (known.code_limit < -1) {
    bad_argument("code_limit is " + std::to_string(known.code_limit) + ", allowed are a number of bytes, 0 for 64 MiB, or -1 for none");
  }
  Options options;
  options.threads = known.threads > 0 ? known.threads : default_threads();
  options.isa = chosen_isa(known.isa);
  options.engine = chosen_engine(known.engine ? known.engine : "auto");
  if (known.tuned) options.tuned = known.tuned;
  if (known.code_limit != 0) options.code_limit = known.code_limit < 0 ? 0 : static_cast<size_t>(known.code_limit);
  return options;
}

}  // namespace tritkit
